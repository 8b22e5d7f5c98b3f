"""Benchmarks: figures, never tests. Each prints medians and tails, the commit and the machine, and writes JSON."""

"""docs/results.md: what the papers report, and beside it what this project has measured."""

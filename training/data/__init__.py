"""Datasets, splits, and the pixels a network sees."""

"""Fitting and judging the confidence of search answers: ``python -m training.confidence``."""

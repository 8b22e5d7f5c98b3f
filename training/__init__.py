"""Training pipelines. Run from a checkout as ``python -m training.NAME``; never part of the wheel."""

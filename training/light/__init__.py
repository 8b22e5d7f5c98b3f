"""Distilling a light sketch encoder from a released one: what ``training.distil`` is made of."""

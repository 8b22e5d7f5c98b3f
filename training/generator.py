"""Pre-training of the photo-to-sketch generator on labelled pairs: ``python -m training.generator``."""

from __future__ import annotations

from training.generation.checkpoint import load_generator, save_generator

__all__ = ["load_generator", "save_generator"]

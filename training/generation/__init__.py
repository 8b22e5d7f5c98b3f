"""Sketches from photos: stroke sequences, and the generator that draws them (METHODS B.1 to B.4)."""

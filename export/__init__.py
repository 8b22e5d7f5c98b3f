"""From a trained model to what a device runs. Run from a checkout; never part of the wheel."""

"""Labelled images: recognised, checked, read and augmented. Knows nothing of networks."""

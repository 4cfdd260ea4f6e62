"""Labelled pictures: recognised, checked, read and augmented. Knows nothing of networks."""

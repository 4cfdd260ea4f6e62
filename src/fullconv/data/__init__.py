"""Labeled images: recognized, checked, read and augmented. Knows nothing of networks."""

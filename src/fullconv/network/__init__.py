"""The network: a backbone, scores at the cells of its feature maps, and their interpolation."""

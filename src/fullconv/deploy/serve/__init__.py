"""A server: images in, segmentations out, over HTTP."""

"""A server: pictures in, segmentations out, over HTTP."""

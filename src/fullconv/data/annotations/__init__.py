"""Annotation files that draw shapes: read, and painted into class ids."""

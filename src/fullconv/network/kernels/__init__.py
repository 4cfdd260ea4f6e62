"""Interpolated loss, label map and confidence, fast. `reference` is the definition, in torch."""

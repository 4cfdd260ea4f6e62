"""The two hot readings of scores, loss and label map. `reference` is the definition, in torch."""

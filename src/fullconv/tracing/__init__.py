"""Composition: follow a picture through a network and keep, for every tensor, where its cells sit.

`place` holds what is known of a tensor, `rules` what each operation does to it, `follow` runs a
network under them.
"""

"""A run as a page to look at: what it reached, where it is wrong, and how to repeat it."""

"""Check a dataset: scan its files, apply the rules, repair, preview, and estimate upper bounds."""

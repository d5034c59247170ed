"""Fitting: run folders, W&B with or without a network, what is kept of a run."""

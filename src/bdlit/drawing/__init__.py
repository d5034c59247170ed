"""Figures: how they look, and those that more than one layer of the package draws."""

"""Searching for the modules that one model should take from another: GMS and its kin."""

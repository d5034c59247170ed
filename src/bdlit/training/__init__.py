"""Fitting: run folders, recipes, training as a function, and what is logged of it."""

import lazy_loader

# Names are imported on first use: importing this package imports no Lightning.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

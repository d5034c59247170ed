"""Checkpoints as read-only mappings from name to tensor: opened safely and lazily, saved whole."""

import lazy_loader

# The defenses name this package without paying for torch, so modules are imported on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

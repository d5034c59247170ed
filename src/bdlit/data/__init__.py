"""Clean text in, poisoned splits out."""

import lazy_loader

# The catalogue must be readable without torch, so modules are imported on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""MSD, module switching: tables of modules, the search for them, and the choice of roles."""

import lazy_loader

# Names are imported on first use: the settings of a defense are read without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

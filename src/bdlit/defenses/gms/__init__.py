"""GMS, guided module substitution: the search, its rows, and the hybrids that it runs."""

import lazy_loader

# Names are imported on first use: the settings of a defense are read without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

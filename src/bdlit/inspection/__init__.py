"""What a checkpoint is, what in it would run code, and how far two are apart."""

import lazy_loader

# Names are imported on first use: importing this package imports no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""What a step of training minimises: for attackers, and for defenders who train again."""

import lazy_loader

# Names are imported on first use: importing this package imports no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Fisher merging, and the information that weighs its models."""

import lazy_loader

# Names are imported on first use: the settings of a defense are read without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

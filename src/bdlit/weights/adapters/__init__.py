"""Low-rank adapters of peft, read, merged and written as the changes of weights that they are."""

import lazy_loader

# Names are imported on first use: the adapters are read without peft.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Language models that are asked from outside: one on this machine, or one behind an endpoint."""

import lazy_loader

# Names are imported on first use: neither torch nor the client of an endpoint is needed before.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

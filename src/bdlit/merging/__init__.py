"""Pure functions from several models to one: lazy in, lazy out, nothing changed in place."""

import lazy_loader

# The defenses name this package without paying for torch, so modules are imported on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Merges written down as YAML, in the form that mergekit reads: read, planned and computed."""

import lazy_loader

# A recipe is read and checked without paying for torch; computing imports it on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""What a defense cost and what it bought: CACC, ASR, and the record of a measurement."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

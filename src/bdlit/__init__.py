"""Train, attack, merge and purify NLP models with backdoors, on PyTorch Lightning."""

import lazy_loader

__version__ = "0.1.0"

# Attributes are imported on first use: `import bdlit` must not pay for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

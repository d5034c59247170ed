"""One hash for the content of a model, whatever file it came from."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from bdlit.types import Weights


def fingerprint(weights: Weights) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, as 64 hex digits.

    It depends neither on the order of names nor on how the model is cut into files, and holds
    one tensor in memory at a time.

    >>> fingerprint({"w": torch.zeros(2)})[:12]
    '216dae342ae4'
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        # The header is one JSON line, so no two different models can give the same bytes.
        header = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        digest.update(header.encode() + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

"""One hash for the content of a model, whatever file it came from."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

from bdlit.weights.outlines import outline
from bdlit.weights.reading import in_pieces

if TYPE_CHECKING:
    from bdlit.types import Weights


def fingerprint(weights: Weights) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, as 64 hex digits.

    It depends neither on the order of names nor on how the model is cut into files, and holds
    one piece of a tensor in memory at a time.

    >>> fingerprint({"w": torch.zeros(2)})[:12]
    '216dae342ae4'
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        form = outline(weights, name)
        # The header is one JSON line, so no two different models can give the same bytes.
        header = json.dumps([name, str(form.dtype), list(form.shape)])
        digest.update(header.encode() + b"\n")
        for piece in in_pieces(weights, name):
            content = piece.detach().cpu().contiguous()
            digest.update(content.view(torch.uint8).numpy().data)
    return digest.hexdigest()

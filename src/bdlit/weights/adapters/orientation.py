"""Layout of the square weights of a base, [in, out] or [out, in], inferred from its other weights.

The Conv1D layers of GPT-2 keep weights as [in, out], and linear layers as [out, in]. The shapes
of LoRA's factors tell the two apart, unless the weight is square; and the config's
`fan_in_fan_out` cannot be trusted, for peft sets it anew at each layer and saves the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bdlit.weights.outlines import outline

if TYPE_CHECKING:
    from bdlit.types import Weights


def transposed_blocks(base: Weights) -> dict[str, bool]:
    """Return, for each block with a layer that tells it, whether weights are laid out [in, out].

    A weight that is not square and has a bias tells it: the bias is as long as the output.

    >>> import torch
    >>> base = {"h.0.fc.weight": torch.ones(2, 8), "h.0.fc.bias": torch.ones(8)}
    >>> transposed_blocks(base)
    {'h.0': True, 'h': True, '': True}
    """
    told: dict[str, bool] = {}
    for name in base:
        block = name.removesuffix(".weight")
        if block == name or f"{block}.bias" not in base:
            continue
        weight, bias = outline(base, name).shape, outline(base, f"{block}.bias").shape
        if len(weight) != 2 or weight[0] == weight[1] or len(bias) != 1:
            continue
        while block:
            block = block.rpartition(".")[0]
            told.setdefault(block, bias[0] == weight[1])
    return told


def is_transposed(name: str, told: Mapping[str, bool], *, otherwise: bool) -> bool:
    """Return what the smallest block around a weight that tells anything says of it.

    >>> is_transposed("h.0.proj.weight", {"h.0": True, "": False}, otherwise=False)
    True
    """
    block = name.removesuffix(".weight")
    while block:
        block = block.rpartition(".")[0]
        if block in told:
            return told[block]
    return otherwise

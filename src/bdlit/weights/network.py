"""The weights of a live network: looked at, loaded, and swapped for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bdlit.errors import BdlitError, did_you_mean
from bdlit.types import Weights


def model_weights(model: nn.Module) -> Weights:
    """Return a model's parameters and persistent buffers by name, tied ones once.

    The mapping holds the tensors themselves, not copies.
    """
    seen: set[int] = set()
    weights = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            weights[name] = tensor.detach()
    return weights


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Leave every parameter whose name holds one of the words in `parts` out of training.

    Raises:
        BdlitError: A word is in no name.
    """
    for part in parts:
        found = [tensor for name, tensor in model.named_parameters() if part in name]
        if not found:
            names = (name.split(".") for name, _ in model.named_parameters())
            pieces = sorted({piece for name in names for piece in name if not piece.isdecimal()})
            raise BdlitError(
                f"frozen part '{part}' is in no parameter's name: {did_you_mean(part, pieces)}"
            )
        for tensor in found:
            tensor.requires_grad_(False)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Have a model in eval mode for a while; it is in its own mode when the block ends."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def load_weights(model: nn.Module, weights: Weights) -> None:
    """Copy weights into a model; names left out keep their values.

    Raises:
        BdlitError: A name or a shape is not the model's.
    """
    own = _fitting(model, weights)
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)


@contextmanager
def swapped(model: nn.Module, weights: Weights) -> Iterator[None]:
    """Run the model on other weights for a while, without a copy of either.

    Args:
        model: The model; its own tensors are back when the block ends, also after an error.
        weights: New values by name, of the model's shapes; names left out keep their values.

    Raises:
        BdlitError: A name or a shape is not the model's.
    """
    own = _fitting(model, weights)
    kept = {name: own[name].data for name in weights}
    try:
        for name, tensor in weights.items():
            own[name].data = tensor.to(device=own[name].device, dtype=own[name].dtype)
        yield
    finally:
        for name, tensor in kept.items():
            own[name].data = tensor


def _fitting(model: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """Return a model's own tensors, and refuse weights of another architecture."""
    own: dict[str, Tensor] = model.state_dict(keep_vars=True)
    for name, tensor in weights.items():
        if name not in own or own[name].shape != tensor.shape:
            there = f"shape {list(own[name].shape)}" if name in own else "no such tensor"
            raise BdlitError(
                f"cannot put '{name}' {list(tensor.shape)} into the model ({there}): "
                "the weights are of another architecture"
            )
    return own

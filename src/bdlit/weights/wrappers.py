"""Names that a wrapper has put something before: torch.compile, DDP, FSDP, a LightningModule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from bdlit.errors import BdlitError
from bdlit.weights.lazy import renamed

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights

_ANYWHERE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What no module of a model is called, so that it may stand at any place of a name."""

_IN_FRONT = ("module.",)
"""What a module may be called, so that it is taken off only where every name begins with it."""


class StateDict(dict[str, "Tensor"]):
    """A state dict from a file, under the model's own names.

    Attributes:
        wrappers: What was taken off its names.
    """

    wrappers: tuple[str, ...] = ()


def model_names(names: Iterable[str], front: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the model's own names, each with the name that it has in a file.

    Args:
        names: Names of the tensors of a file.
        front: More beginnings to take off, where every name has them.

    Raises:
        BdlitError: Two names become one.

    >>> model_names(["module._orig_mod.score.weight"])
    {'score.weight': 'module._orig_mod.score.weight'}
    """
    wrapped = list(names)
    plain = wrapped
    while (shorter := _once(plain, (*_IN_FRONT, *front))) != plain:
        plain = shorter
    found = dict(zip(plain, wrapped, strict=True))
    if len(found) != len(wrapped):
        double = next(name for i, name in enumerate(plain) if name in plain[:i])
        raise BdlitError(
            f"two tensors are called {double} without the names of wrappers around the model: "
            "save the state dict of the model itself"
        )
    return found


def unwrapped(weights: Weights) -> Weights:
    """Return weights under the model's own names; the same object where nothing is wrapped.

    >>> import torch
    >>> list(unwrapped({"_orig_mod.w": torch.ones(1)}))
    ['w']
    """
    names = model_names(weights)
    if all(new == old for new, old in names.items()):
        return weights
    if isinstance(weights, dict):
        return state_dict(weights, names)
    found = renamed(weights, names)
    found.notes["wrappers"] = taken_off(names)
    return found


def state_dict(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> StateDict:
    """Return tensors under new names, with what was taken off the old ones."""
    found = StateDict({new: tensors[old] for new, old in names.items()})
    found.wrappers = taken_off(names)
    return found


def wrappers_of(weights: Weights | None) -> tuple[str, ...]:
    """Return what was taken off the names of opened weights."""
    notes = getattr(weights, "notes", {})
    return tuple(getattr(weights, "wrappers", ()) or notes.get("wrappers", ()))


def taken_off(names: Mapping[str, str]) -> tuple[str, ...]:
    """Return what was taken off names, each once.

    >>> taken_off({"w": "module.w", "b": "module.b"})
    ('module.',)
    """
    words = (*_IN_FRONT, "model.", *_ANYWHERE)
    return tuple(w for w in words if any(o.count(w) > n.count(w) for n, o in names.items()))


def _once(names: list[str], front: tuple[str, ...]) -> list[str]:
    for word in _ANYWHERE:
        names = [name.replace(word, "") for name in names]
    for word in front:
        if names and all(name.startswith(word) for name in names):
            names = [name.removeprefix(word) for name in names]
    return names

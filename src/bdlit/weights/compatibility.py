"""Whether models can be merged at all: the same names, the same shapes, the same vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from bdlit.errors import BdlitError
from bdlit.weights.outlines import outline

if TYPE_CHECKING:
    from bdlit.types import Weights

_ROW_PER_TOKEN = re.compile(r"word_embeddings|tok_embeddings|embed_tokens|wte\.|lm_head")
_SHOWN = 3  # names shown for each kind of difference


def require_compatible(
    suspect: Weights,
    others: Sequence[Weights],
    names: Collection[str] | None = None,
    *,
    ignored: Callable[[str], bool] = lambda name: False,
    labels: Sequence[str] | None = None,
) -> None:
    """Refuse models that are not of the suspect's architecture and vocabulary.

    Args:
        suspect: The model that sets names and shapes.
        others: Models to be merged with it.
        names: Tensors that must agree; None takes all of the suspect's, and then a float tensor
            that only the other has is a difference too (a deeper model of the same family).
        ignored: Whether a tensor may differ, by its name.
        labels: What to call the others in the message; `other 1`, `other 2` ... by default.

    Raises:
        BdlitError: A model differs; the message lists what.

    >>> import torch
    >>> require_compatible({"w": torch.ones(2)}, [{"w": torch.ones(3)}])
    Traceback (most recent call last):
    bdlit.errors.BdlitError: other 1 does not fit the suspect: 1 of another shape \
(w [3], not [2]); merge models of one architecture only
    """
    for i, other in enumerate(others):
        label = labels[i] if labels else f"other {i + 1}"
        differences = list(filter(None, _differences(suspect, other, names, ignored)))
        if differences:
            raise BdlitError(f"{label} does not fit the suspect: " + "; ".join(differences))


def _differences(
    suspect: Weights,
    other: Weights,
    names: Collection[str] | None,
    ignored: Callable[[str], bool],
) -> tuple[str, ...]:
    # In the order of names, so that a model says the same whatever file it came from.
    wanted = sorted(n for n in (suspect if names is None else names) if not ignored(n))
    ours = {n: outline(suspect, n) for n in wanted}
    theirs = {n: outline(other, n) for n in wanted if n in other}
    # Integer buffers (position ids) come and go between versions of transformers, and are copied.
    missing = [n for n, own in ours.items() if n not in theirs and own.is_float]
    extra = (
        sorted(
            n for n in other if n not in suspect and outline(other, n).is_float and not ignored(n)
        )
        if names is None
        else []
    )
    common = [n for n in theirs if ours[n].is_float]
    reshaped = [n for n in common if theirs[n].shape != ours[n].shape]
    retyped = [n for n in common if not theirs[n].is_float]
    shapes = [f"{n} {list(theirs[n].shape)}, not {list(ours[n].shape)}" for n in reshaped]
    return (
        _listed(len(missing), "missing", missing),
        _listed(len(extra), "too many", extra),
        _listed(len(reshaped), "of another shape", shapes),
        _listed(len(retyped), "not floating point", retyped),
        _advice(reshaped, missing or extra or reshaped or retyped),
    )


def _listed(count: int, kind: str, items: Sequence[str]) -> str:
    if not count:
        return ""
    more = ", ..." if count > _SHOWN else ""
    return f"{count} {kind} ({', '.join(items[:_SHOWN])}{more})"


def _advice(reshaped: Sequence[str], differs: object) -> str:
    if any(_ROW_PER_TOKEN.search(name) for name in reshaped):
        return "it has another vocabulary: merge models of one tokenizer only"
    return "merge models of one architecture only" if differs else ""

"""What becomes of the head: one setting and one vocabulary for all defenses.

A base checkpoint has no trained head, and models of other tasks have heads of their own, so the
tensors of the head are told from the others by name, and their treatment is a setting. What became
of them stands in the notes of every result, whatever the method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from bdlit import merging, weights
from bdlit.defenses.base import Defended, Defense
from bdlit.errors import BdlitError
from bdlit.types import Weights

if TYPE_CHECKING:
    from bdlit.weights import LazyWeights

HeadPolicy: TypeAlias = Literal["average", "keep_suspect", "merge"]
"""The setting `head`: the mean of all models' heads, the suspect's own, or what the rest becomes;
where that is a merge over the base, the base must have a head too."""

HeadFate: TypeAlias = Literal[
    "suspect's", "averaged", "merged", "other's", "changed", "trained", "mixed", "none"
]
"""What became of a head, as the note `head` of every result says: it is the suspect's own, the mean
of all models', made by the same merge as the rest, another model's as a whole, computed from the
suspect's own, trained by the defense, of several of these (the note `head_tensors` counts them), or
there is none, as in language models."""

HeadStart: TypeAlias = Literal["base's", "family's", "suspect's", "drawn"]
"""What the head of a model that a defense trains began with: the head of the base, the draw that
all models of the suspect's family began with, the suspect's head, or a draw of its own."""

_Result = TypeVar("_Result", bound=Defended)

HEAD_NAMES = (
    "classifier.",  # BERT, RoBERTa, DistilBERT, DeBERTa, ELECTRA, ModernBERT
    "pre_classifier.",  # DistilBERT
    "pooler.",  # DeBERTa's ContextPooler; the pooler of BERT is `bert.pooler.`, and in its base
    "head.",  # ModernBERT
    "score.",  # decoders: Llama, Qwen2, GPT-2, OPT
    "classification_head.",  # BART, T5
    "sequence_summary.",  # XLNet, XLM
    "logits_proj.",  # XLNet
)
"""Beginnings of the names of head tensors in transformers' sequence classifiers."""


def merge_around_head(
    suspect: Weights,
    others: Sequence[Weights],
    merge: Callable[[Sequence[Weights]], LazyWeights],
    *,
    head: HeadPolicy,
    head_names: tuple[str, ...],
    shares: Sequence[float] | None = None,
) -> Defended:
    """Merge the suspect with others, and treat the head by its policy.

    Args:
        suspect: The model to purify; it gives names, dtypes and integer buffers.
        others: At least one model of the same architecture.
        merge: From the tensors to be merged, of the suspect first, to the merged ones.
        head: What becomes of the head.
        head_names: Beginnings of the names of its tensors.
        shares: How much each model counts in the average of the heads; None counts all alike.

    Raises:
        BdlitError: There is no other model, or one does not fit the suspect.
    """
    if not others:
        raise BdlitError("there are no other models to merge with: give at least one in others")
    of_head = head_of(suspect, head_names)
    apart = set() if head == "merge" else set(of_head)
    body = [name for name in weights.float_names(suspect) if name not in apart]
    # A head that is kept need not fit: the others may have another number of classes.
    weights.require_compatible(suspect, others, body if head == "keep_suspect" else None)
    models = [suspect, *others]
    merged = merge([weights.select(model, body) for model in models])
    result: Weights = weights.overlay(suspect, merged)
    if head == "average":
        result = with_head(result, models, of_head, head, shares)
    changed = set(body) | (set(of_head) if head == "average" else set())
    return Defended(
        weights=result,
        merged=[name for name in suspect if name in changed],
        copied=[name for name in suspect if name not in changed],
        notes={"models": len(models), **merged.notes},
    )


def head_of(suspect: Weights, head_names: Sequence[str]) -> list[str]:
    """Return the names of the float tensors of the head, told by the beginnings of names.

    >>> import torch
    >>> head_of({"bert.w": torch.ones(1), "score.weight": torch.ones(1)}, HEAD_NAMES)
    ['score.weight']
    """
    beginnings = tuple(head_names)
    return [name for name in weights.float_names(suspect) if name.startswith(beginnings)]


def with_head(
    result: Weights,
    models: Sequence[Weights],
    names: Sequence[str],
    head: HeadPolicy,
    shares: Sequence[float] | None = None,
) -> Weights:
    """Return a result with the head by its policy; `merge` leaves it as it is.

    Args:
        result: The result, with a head of its own.
        models: The models, the suspect first.
        names: Names of the tensors of the head.
        head: What becomes of it.
        shares: How much each model counts in an average; None counts all alike.

    Raises:
        BdlitError: Heads that are averaged differ in shape, or a model lacks one.
    """
    if head == "merge":
        return result
    if head == "keep_suspect":
        return weights.overlay(result, weights.select(models[0], names))
    weights.require_compatible(models[0], models[1:], names)
    heads = merging.average([weights.select(model, names) for model in models], shares)
    return weights.overlay(result, heads)


def told_of_head(defense: Defense, defended: _Result) -> _Result:
    """Return a result whose notes say what became of the head, in the words of `HeadFate`.

    Args:
        defense: What made it.
        defended: The result, which says of each tensor whether it was merged, changed or copied.

    >>> from bdlit.defenses import WAG
    >>> found = Defended(weights={}, merged=["bert.w"], copied=["classifier.weight"])
    >>> told_of_head(WAG(), found).notes
    {'head': "suspect's", 'head_tensors': {"suspect's": 1}}
    """
    names = tuple(getattr(defense, "head_names", HEAD_NAMES))
    fates: dict[str, HeadFate] = dict.fromkeys([*defended.weights, *defended.copied], "suspect's")
    fates |= dict.fromkeys(defended.changed, defense.head_becomes or "changed")
    fates |= dict.fromkeys(defended.merged, defense.head_becomes or "merged")
    counts = Counter(fate for name, fate in fates.items() if name.startswith(names))
    words: list[HeadFate] = list(counts)
    head: HeadFate = "mixed" if len(words) > 1 else words[0] if words else "none"
    told: dict[str, Any] = {"head": head, "head_tensors": dict(counts)}
    return replace(defended, notes={**defended.notes, **told})


def base_for(base: Weights, suspect: Weights, head: HeadPolicy, names: tuple[str, ...]) -> Weights:
    """Return the base under the suspect's names, and refuse one that lacks more than the head.

    Raises:
        BdlitError: The base lacks tensors that the suspect has outside its head, or their shapes
            differ; the message lists them.
    """
    aligned = weights.align_names(base, suspect)
    needed = [
        name
        for name in weights.float_names(suspect)
        if head == "merge" or not name.startswith(names)
    ]
    weights.require_compatible(suspect, [aligned], needed, labels=["the base"])
    return aligned

"""The part that all merging defenses share: what becomes of the head, and of the rest.

A base checkpoint has no trained head, and models of other tasks have heads of their own, so the
tensors of the head are told from the others by name, and their treatment is a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from bdlit import merging, weights
from bdlit.defenses.base import Defended
from bdlit.errors import BdlitError
from bdlit.types import Weights

if TYPE_CHECKING:
    from bdlit.weights import LazyWeights

HeadPolicy: TypeAlias = Literal["average", "keep_suspect", "merge"]
"""What becomes of the head: the mean of all models' heads, the suspect's own, or the same merge
as the rest, for which the base must have a head too."""

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
) -> Defended:
    """Merge the suspect with others, and treat the head by its policy.

    Args:
        suspect: The model to purify; it gives names, dtypes and integer buffers.
        others: At least one model of the same architecture.
        merge: From the tensors to be merged, of the suspect first, to the merged ones.
        head: What becomes of the head.
        head_names: Beginnings of the names of its tensors.

    Raises:
        BdlitError: There is no other model, or one does not fit the suspect.
    """
    if not others:
        raise BdlitError("there are no other models to merge with: give at least one in others")
    floats = weights.float_names(suspect)
    of_head = [name for name in floats if name.startswith(head_names)]
    apart = [] if head == "merge" else of_head
    body = [name for name in floats if name not in set(apart)]
    # A head that is kept need not fit: the others may have another number of classes.
    weights.require_compatible(suspect, others, body if head == "keep_suspect" else None)
    models = [suspect, *others]
    merged = merge([weights.select(model, body) for model in models])
    result = weights.overlay(suspect, merged)
    if head == "average":
        heads = merging.average([weights.select(model, of_head) for model in models])
        result = weights.overlay(result, heads)
    changed = set(body) | (set(of_head) if head == "average" else set())
    return Defended(
        weights=result,
        merged=[name for name in suspect if name in changed],
        copied=[name for name in suspect if name not in changed],
        notes={
            "models": len(models),
            "head": head,
            "head_tensors": len(of_head),
            **merged.notes,
        },
    )


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

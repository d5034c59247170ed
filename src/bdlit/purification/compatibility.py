"""Which models may be put together: compared once, by one implementation, for every door."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from bdlit.defenses.base import Defense, require_resources
from bdlit.defenses.head import HEAD_NAMES
from bdlit.errors import BdlitError
from bdlit.purification.held import Held, HeldModel
from bdlit.purification.label_order import LabelPolicy, in_label_order, require_one_task
from bdlit.weights import float_names, outline, require_compatible, select
from bdlit.weights.checkpoint import Checkpoint, open_checkpoint
from bdlit.weights.outputs import with_output
from bdlit.weights.tokenizer import TokenizerFacts, first_difference

if TYPE_CHECKING:
    from bdlit.purification.suspect import Suspect
    from bdlit.types import Weights

DifferencesPolicy: TypeAlias = Literal["error", "keep_suspect"]
"""What to do with tensors that another model lacks or has in another shape: refuse the merge, or
keep the suspect's own."""


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What is done about models that do not match the suspect.

    Attributes:
        labels: Classes in another order are refused (`error`), brought into the suspect's order
            (`permute`), or merged as they stand (`ignore`).
        differences: Tensors that not all models have in one shape are refused (`error`), or stay
            the suspect's own (`keep_suspect`).
        adapter_base: The model that adapters are merged into; by default the one each names.
    """

    labels: LabelPolicy = "error"
    differences: DifferencesPolicy = "error"
    adapter_base: str | None = None


@dataclass(frozen=True)
class Other:
    """A model to be put together with a suspect, opened, with what was read beside it.

    Attributes:
        name: How it is called in records.
        checkpoint: The model.
    """

    name: str
    checkpoint: Checkpoint


def open_others(
    suspect: Suspect, addresses: Sequence[str], matching: Matching, names: Sequence[str] = ()
) -> list[Other]:
    """Open saved models, and require the suspect's architecture and words of each.

    Args:
        suspect: The suspect.
        addresses: Addresses of the models.
        matching: What is done about models that do not match.
        names: What they are called in records; their addresses by default.

    Raises:
        BdlitError: A model is missing or broken, or has another architecture or vocabulary.
    """
    opened = []
    for address, name in zip(addresses, names or addresses, strict=True):
        checkpoint = open_checkpoint(address, adapter_base=matching.adapter_base)
        weights = with_output(checkpoint.weights, checkpoint.config, suspect.weights)
        checkpoint = replace(checkpoint, weights=weights)
        _require_same_type(suspect, checkpoint)
        _require_same_words(suspect, checkpoint)
        opened.append(Other(name, checkpoint))
    return opened


def fitted(
    suspect: Suspect,
    defense: Defense,
    others: Sequence[Other],
    held: Held,
    matching: Matching,
    promised: Collection[str] = (),
) -> Held:
    """Return what is held with the others as a defense may be given them, and refuse misfits.

    Resources, names, shapes, the order of classes and heads are compared here, for one defense:
    classes matter where heads are merged, and shapes where tensors are.

    Args:
        suspect: The suspect, or the victim that it will be trained from.
        defense: The method.
        others: The other models.
        held: All else that is held.
        matching: What is done about models that do not match.
        promised: Names of resources that are not there yet, and will be when the defense runs.

    Raises:
        BdlitError: A resource is missing, a model does not fit, or the defense says so.
    """
    at_hand = {*held.names, *promised, *(["others"] if others else [])}
    require_resources(defense, at_hand | ({"victim", "train"} if suspect.runnable else set()))
    if "others" not in defense.uses:
        return replace(held, others=())
    keeps = matching.differences == "keep_suspect"
    keep = _unshared(suspect, others) if keeps else []
    ready = [HeldModel(each.name, _ordered(suspect, defense, each, matching)) for each in others]
    left_out = _left_out(suspect, ready) if keeps and defense.keeps_names else {}
    ready = [_without(each, left_out.get(each.name, ())) for each in ready]
    if defense.keeps_names:
        where = [each.checkpoint.address for each in others]
        _require_shapes(suspect, defense, ready, where, keep)
    defense.check(
        suspect.weights,
        others=[each.weights for each in ready],
        base=held.base.weights if held.base else None,
        model_type=suspect.model_type,
    )
    return replace(held, others=ready, keep=keep, left_out=left_out)


def open_base(address: str, suspect: Suspect) -> HeldModel:
    """Open the checkpoint that the suspect was fine-tuned from.

    Raises:
        BdlitError: It is missing or broken, or of another architecture or vocabulary.
    """
    checkpoint = open_checkpoint(address)
    _require_same_type(suspect, checkpoint)
    _require_same_words(suspect, checkpoint)
    return HeldModel(address, checkpoint.weights)


def _ordered(suspect: Suspect, defense: Defense, other: Other, matching: Matching) -> Weights:
    """Return the other's weights with its classes in the suspect's order, where heads meet."""
    if defense.keeps_head:
        return other.checkpoint.weights
    require_one_task(suspect, other.checkpoint, matching.labels)
    return in_label_order(suspect.labels, other.checkpoint, matching.labels)


def _require_shapes(
    suspect: Suspect,
    defense: Defense,
    others: Sequence[HeldModel],
    addresses: Sequence[str],
    keep: Sequence[str],
) -> None:
    aside = tuple(getattr(defense, "head_names", HEAD_NAMES)) if defense.keeps_head else ()
    kept = set(keep)
    require_compatible(
        suspect.weights,
        [other.weights for other in others],
        ignored=lambda name: name in kept or name.startswith(aside),
        labels=addresses,
    )


def _require_same_type(suspect: Suspect, other: Checkpoint) -> None:
    ours, theirs = suspect.model_type, other.config.get("model_type")
    if ours and theirs and ours != theirs:
        raise BdlitError(
            f"{other.address} is a {theirs} model and {suspect.address} a {ours} model: merge "
            "models of one architecture only"
        )


def _require_same_words(suspect: Suspect, other: Checkpoint) -> None:
    """Refuse a model whose tokenizer numbers words in another way.

    Models whose words cannot be read as plain data cannot be compared, and pass: the shapes of
    their embeddings are compared in any case.
    """
    ours, theirs = suspect.words, other.words
    if not _known(ours) or not _known(theirs):
        return
    assert ours is not None
    assert theirs is not None
    found = first_difference(ours, theirs)
    if found is not None:
        index, own, their = found
        raise BdlitError(
            f"{other.address} has another vocabulary than {suspect.address} (token {index} is "
            f"{their!r} there, {own!r} here): models can be merged only if they share one tokenizer"
        )


def _known(words: TokenizerFacts | None) -> bool:
    return words is not None and bool(words.words)


def _left_out(suspect: Suspect, others: Sequence[HeldModel]) -> dict[str, list[str]]:
    """Return for each other model the tensors that the suspect has not, where it has such."""
    found = {
        each.name: [name for name in float_names(each.weights) if name not in suspect.weights]
        for each in others
    }
    return {name: extra for name, extra in found.items() if extra}


def _without(other: HeldModel, names: Collection[str]) -> HeldModel:
    if not names:
        return other
    rest = [name for name in other.weights if name not in set(names)]
    return replace(other, weights=select(other.weights, rest))


def _unshared(suspect: Suspect, others: Sequence[Other]) -> list[str]:
    """Return the float tensors of the suspect that not all others have in its shape."""
    floats = float_names(suspect.weights)
    unshared = [
        name
        for name in floats
        if any(
            name not in each.checkpoint.weights
            or outline(each.checkpoint.weights, name).shape != outline(suspect.weights, name).shape
            for each in others
        )
    ]
    if floats and len(unshared) == len(floats):
        raise BdlitError(
            f"the others share no tensor with {suspect.address}: merge models of one architecture"
        )
    return unshared

"""Whether two checkpoints can be merged: differing names, shapes, dtypes, words, labels."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from bdlit.inspection.facts import Inspection
from bdlit.weights.labels import compare_labels
from bdlit.weights.outlines import Outline
from bdlit.weights.tokenizer import first_difference


@dataclass(frozen=True, kw_only=True, slots=True)
class Differences:
    """How a checkpoint differs from the first one.

    Attributes:
        only_first: Names of tensors that only the first has.
        only_other: Names of tensors that only the other has.
        shapes: Name to the two shapes, where they differ.
        dtypes: Name to the two dtypes, where they differ.
        renamed: Whether one is the bare encoder of the other, so that names were matched without
            the prefix of the classifier.
        tokenizers: How the tokenizers differ, in words; None if they do not.
        labels: How the labels differ, in words; None if they do not.
        unknown: What could not be compared.
        obstacles: Why the two cannot be merged as they are, one phrase each.
    """

    only_first: tuple[str, ...] = ()
    only_other: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    dtypes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    renamed: bool = False
    tokenizers: str | None = None
    labels: str | None = None
    unknown: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether the two can be merged, in one line.

        >>> Differences(obstacles=("another tokenizer",)).verdict
        'cannot be merged as they are: another tokenizer'
        """
        if self.obstacles:
            return f"cannot be merged as they are: {'; '.join(self.obstacles)}"
        left = f", as far as is known ({'; '.join(self.unknown)})" if self.unknown else ""
        return f"can be merged{left}"


def differences(first: Inspection, other: Inspection) -> Differences:
    """Compare what two inspections found.

    Tensors that are not floating point (position ids) are reported but prevent no merge: they are
    copied.

    Args:
        first: The checkpoint that the other one is measured against.
        other: The other one.

    >>> one = Inspection(address="a", form="file", files={}, labels={0: "bad", 1: "good"})
    >>> two = Inspection(address="b", form="file", files={}, labels={0: "good", 1: "bad"})
    >>> differences(one, two).labels
    'permuted: bad, good against good, bad'
    """
    ours, theirs, renamed = _matched(first.outlines, other.outlines)
    common = [name for name in ours if name in theirs]
    readable = bool(ours) and bool(theirs)
    shapes = {
        name: (tuple(ours[name].shape), tuple(theirs[name].shape))
        for name in common
        if ours[name].shape != theirs[name].shape
    }
    dtypes = {
        name: (_dtype(ours[name]), _dtype(theirs[name]))
        for name in common
        if ours[name].dtype != theirs[name].dtype
    }
    only_first = tuple(name for name in ours if name not in theirs) if readable else ()
    only_other = tuple(name for name in theirs if name not in ours) if readable else ()
    words, words_unknown = _tokenizers(first, other)
    labels, labels_unknown = _labels(first, other)
    tensors_unknown = None if readable else "the tensors of one were not read"
    missing = [name for name in only_first if ours[name].is_float]
    extra = [name for name in only_other if theirs[name].is_float]
    obstacles = (
        _names_obstacle(missing, extra, {*first.head, *other.head}),
        _shapes_obstacle(shapes, {*first.head, *other.head}),
        _counted([n for n in dtypes if ours[n].is_float != theirs[n].is_float], "number types"),
        _families(first, other),
        f"tokenizers {words}" if words else None,
        f"labels {labels}" if labels else None,
        _adapters(first, other),
        *(_packed(model) for model in (first, other)),
    )
    return Differences(
        only_first=only_first,
        only_other=only_other,
        shapes=shapes,
        dtypes=dtypes,
        renamed=renamed,
        tokenizers=words,
        labels=labels,
        unknown=tuple(filter(None, (tensors_unknown, words_unknown, labels_unknown))),
        obstacles=tuple(filter(None, obstacles)),
    )


_Outlines = Mapping[str, Outline]


def _matched(ours: _Outlines, theirs: _Outlines) -> tuple[_Outlines, _Outlines, bool]:
    """Bring two models to common names, where one is saved without the other's prefix."""
    if not ours or not theirs or any(name in theirs for name in ours):
        return ours, theirs, False
    for swap in (False, True):
        long, short = (theirs, ours) if swap else (ours, theirs)
        full = {_spelling(name.partition(".")[2]): name for name in long}
        renamed = {full.get(_spelling(name), name): own for name, own in short.items()}
        if any(name in long for name in renamed):
            return (renamed, theirs, True) if swap else (ours, renamed, True)
    return ours, theirs, False


def _spelling(name: str) -> str:
    """Return how models of today call a tensor."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _dtype(own: Outline) -> str:
    return str(own.dtype).removeprefix("torch.")


def _names_obstacle(missing: list[str], extra: list[str], head: Collection[str]) -> str | None:
    if not missing and not extra:
        return None
    if {*missing, *extra} <= set(head):
        return "only one has a head (head: keep_suspect merges the rest)"
    return f"{len(missing) + len(extra)} tensors are in one of the two alone"


def _shapes_obstacle(shapes: Collection[str], head: Collection[str]) -> str | None:
    if not shapes:
        return None
    if set(shapes) <= set(head):
        return "heads of different size (head: keep_suspect merges the rest)"
    return f"{len(shapes)} tensors of different shape"


def _counted(names: list[str], what: str) -> str | None:
    return f"{len(names)} tensors of different {what}" if names else None


def _families(first: Inspection, other: Inspection) -> str | None:
    ours, theirs = first.model_type, other.model_type
    return f"{ours} against {theirs}" if ours and theirs and ours != theirs else None


def _packed(model: Inspection) -> str | None:
    return f"{model.address} is quantised ({model.quantised})" if model.quantised else None


def _adapters(first: Inspection, other: Inspection) -> str | None:
    if (first.adapter is None) != (other.adapter is None):
        return "one is an adapter, the other a model"
    if first.adapter and other.adapter and first.adapter.base != other.adapter.base:
        return "adapters of different base models"
    return None


def _tokenizers(first: Inspection, other: Inspection) -> tuple[str | None, str | None]:
    """Return how the tokenizers differ, and why that is not known."""
    ours, theirs = first.tokenizer, other.tokenizer
    if ours is None or theirs is None:
        return None, "a tokenizer is missing"
    if ours.sha256 == theirs.sha256:
        return None, None
    if ours.words and theirs.words:
        found = first_difference(ours, theirs)
        if found:
            words = " against ".join("nothing" if w is None else f"'{w}'" for w in found[1:])
            return f"differ from word {found[0]} on: {words}", None
        if ours.files == theirs.files:
            return "have the same words, but other rules", None
        return None, "tokenizers of one vocabulary in files of different kind"
    if ours.files == theirs.files:
        return "differ", None
    return None, "tokenizers in files of different kind"


_DEFAULT_LABEL = re.compile(r"label_\d+", re.IGNORECASE)


def _labels(first: Inspection, other: Inspection) -> tuple[str | None, str | None]:
    """Return how the labels differ, and why that is not known."""
    ours, theirs = _names(first), _names(other)
    if first.label_count and other.label_count and first.label_count != other.label_count:
        return f"{first.label_count} against {other.label_count}", None
    if not ours or not theirs:
        return None, "one of the two does not name its labels"
    agreement = compare_labels(ours, theirs)
    if agreement == "same":
        return None, None
    kind = "permuted" if agreement == "permuted" else "differ"
    return f"{kind}: {', '.join(ours)} against {', '.join(theirs)}", None


def _names(model: Inspection) -> list[str] | None:
    names = list(model.labels.values()) if model.labels else []
    return None if all(_DEFAULT_LABEL.fullmatch(name) for name in names) else names

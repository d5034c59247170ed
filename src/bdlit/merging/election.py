"""TIES: trim each task vector, elect a sign for each entry, average those that agree with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import torch

from bdlit.merging.averaging import shares_of
from bdlit.merging.settings import Trim, TrimCount, ZeroSum, require_choice, require_scale
from bdlit.merging.task_vectors import add_to_base, task_vectors
from bdlit.merging.trimming import trim_smallest
from bdlit.weights import Elementwise, LazyWeights, outline
from bdlit.weights.reading import PIECE
from bdlit.weights.threads import threads

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Piece, Read


def ties(
    base: Weights,
    models: Sequence[Weights],
    *,
    density: float = 0.2,
    scale: float = 1.0,
    trim: Trim = "model",
    zero_sum: ZeroSum | None = None,
    count: TrimCount = "exact",
    weights: Sequence[float] | None = None,
    normalise: bool = True,
) -> LazyWeights:
    """Merge models by TIES: trim, elect sign, disjoint mean.

    Args:
        base: The checkpoint that the models were fine-tuned from.
        models: One or more models; the first gives names, dtypes and integer buffers.
        density: Share of each task vector that is kept, in (0, 1].
        scale: Factor on the merged task vector (the paper's lambda).
        trim: Seek the largest entries in the whole `model`, as the paper's code does, or in each
            `tensor`, as mergekit and peft do.
        zero_sum: Sign elected where the kept entries cancel exactly: the sign of the `majority`
            of the model's entries (the paper's code) or `positive` (mergekit, peft). None takes
            what goes with `trim`.
        count: How many entries `density` is: k (`exact`), or the k + 1 of the `published` code;
            see `trim_smallest`.
        weights: Factor on each trimmed task vector, >= 0, before a sign is elected; None is 1 for
            all. They are not divided by their sum.
        normalise: Divide the sum of the entries that agree by the sum of their weights, which is
            the disjoint mean; otherwise it stays a sum, as under mergekit's `normalize: false`.

    Returns:
        The merge, computed on access; its notes hold the share `kept` of each model and, for
        `trim="model"`, the `thresholds`. Thresholds are found now, in two passes over the models.

    Raises:
        BdlitError: A setting is out of range, models differ in names or shapes, or the base
            lacks one of their tensors.

    Reference: Yadav et al. 2023, "TIES-Merging: Resolving Interference When Merging Models",
        arXiv:2306.01708.
    Deviation: Entries that equal the threshold are all kept, and k of them, where the published
        code keeps k + 1 (`count="published"`; see `trim_smallest`). Weights, and a sum in place of
        the mean, are mergekit's.

    >>> base = {"w": torch.zeros(4)}
    >>> a, b = {"w": torch.tensor([4.0, 1.0, -3.0, 0.0])}, {"w": torch.tensor([2.0, 0.0, 5.0, 1.0])}
    >>> ties(base, [a, b], density=0.5)["w"]
    tensor([3., 0., 5., 0.])
    """
    require_scale(scale)
    vectors = task_vectors(base, models)
    trimmed = [trim_smallest(each, density, scope=trim, count=count) for each in vectors]
    notes = {"kept": [vector.notes["kept"] for vector in trimmed]}
    if trim == "model":
        notes["thresholds"] = [vector.notes.get("threshold", 0.0) for vector in trimmed]
    if zero_sum is None:
        zero_sum = "majority" if trim == "model" else "positive"
    merged = elect_and_average(trimmed, zero_sum=zero_sum, weights=weights, normalise=normalise)
    return add_to_base(base, models[0], merged, scale=scale, notes=notes)


def elect_and_average(
    vectors: Sequence[Weights],
    *,
    zero_sum: ZeroSum = "majority",
    weights: Sequence[float] | None = None,
    normalise: bool = True,
) -> LazyWeights:
    """Average, entry by entry, the task vectors that have the sign of their sum.

    Zero entries neither vote nor count; where none is left the result is zero.

    Args:
        vectors: One or more task vectors of the same names and shapes.
        zero_sum: Sign where non-zero entries sum to zero: that of the `majority` of the sums
            over all tensors (computed in one more pass, only if the case occurs), or `positive`.
        weights: Factor on each vector, >= 0, before the vote; None is 1 for all.
        normalise: Divide by the weights of those that agree; otherwise their sum is returned.

    Raises:
        BdlitError: `zero_sum` is unknown, or the weights do not fit the vectors.

    Reference: Yadav et al. 2023, arXiv:2306.01708, steps 2 and 3.
    Deviation: Where the majority itself is a draw, + is taken; the paper's code then keeps the
        negative entries, by the way a comparison is written.

    >>> a, b = {"w": torch.tensor([1.0, -2.0])}, {"w": torch.tensor([3.0, 1.0])}
    >>> elect_and_average([a, b])["w"]
    tensor([ 2., -2.])
    """
    require_choice("zero_sum", zero_sum, ZeroSum)
    shares = shares_of(weights, len(vectors))
    vectors = [_times(each, share) for each, share in zip(vectors, shares, strict=True)]
    divisors = shares if normalise else None
    majority = _Majority(vectors)

    def elected(name: str, read: Read) -> Float[Tensor, " *shape"]:
        on_zero = majority if zero_sum == "majority" else None
        deltas = [read(vector, name) for vector in vectors]
        flat = (torch.split(delta.reshape(-1), _run(delta)) for delta in deltas)
        merged = [_disjoint_mean(part, divisors, on_zero) for part in zip(*flat, strict=True)]
        return torch.cat(merged).view(deltas[0].shape)

    return Elementwise(vectors[0], elected, outline=partial(outline, vectors[0]))


def _times(vector: Weights, factor: float) -> Weights:
    if factor == 1:
        return vector
    return Elementwise(
        vector, lambda name, read: read(vector, name) * factor, outline=partial(outline, vector)
    )


class _Majority:
    """The sign of most sums of the entries of a whole model; found once, if it is asked for."""

    def __init__(self, vectors: Sequence[Weights]) -> None:
        self._vectors = vectors
        self._threads = torch.get_num_threads()  # as many as now, whichever thread asks for it
        self._found: float | None = None
        self._lock = Lock()

    def __call__(self) -> float:
        with self._lock:
            if self._found is None:
                first = self._vectors[0]
                with threads(first, first, self._threads) as each:
                    self._found = 1.0 if sum(each(first, self._balance)) >= 0 else -1.0
            return self._found

    def _balance(self, name: str, reads: Callable[[], Iterator[Piece]]) -> int:
        """Return how many more sums are positive than negative."""
        # Counted in float32, which is exact: no piece has 2^24 entries.
        return sum(
            int(_sum([read(vector, name) for vector in self._vectors]).sign_().sum())
            for read in reads()
        )


def _run(delta: Tensor) -> int:
    """Return how many entries are computed together."""
    return PIECE if delta.device.type == "cpu" else max(1, delta.numel())


def _sum(deltas: Sequence[Float[Tensor, " entries"]]) -> Float[Tensor, " entries"]:
    total = torch.zeros_like(deltas[0])
    for delta in deltas:
        total.add_(delta)
    return total


def _disjoint_mean(
    deltas: Sequence[Float[Tensor, " entries"]],
    divisors: Sequence[float] | None,
    on_zero: Callable[[], float] | None,
) -> Float[Tensor, " entries"]:
    """Return the mean of the entries of the elected sign; on a zero sum +, or what is returned.

    Each delta counts as much as its divisor says; without divisors the sum is returned.
    """
    sign = _sum(deltas).sign_()
    undecided = sign.abs().neg_().add_(1)
    # Most are entries that no model kept; only a tie between kept ones needs the majority.
    tied = on_zero and any(float(torch.dot(undecided, delta.abs())) for delta in deltas)
    sign.add_(undecided, alpha=on_zero() if tied and on_zero else 1.0)
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for i, delta in enumerate(deltas):
        agreeing = (delta * sign).relu_()  # a NaN stays, to be seen in the result
        total.add_(agreeing)
        if divisors is not None:
            count.add_(agreeing.sign_(), alpha=divisors[i])
    if divisors is not None:
        # An entry that nobody kept is divided by what does not matter.
        total.div_(count.clamp_(min=min(each for each in divisors if each)))
    # Zero is added last for the sign of zeros: an entry that nobody kept is +0.
    return total.mul_(sign).add_(0.0)

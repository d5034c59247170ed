"""DARE: drop most entries of each task vector at random, rescale the rest, then merge."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from bdlit.merging.averaging import running_mean
from bdlit.merging.election import elect_and_average
from bdlit.merging.settings import DareMerge, require_choice, require_drop, require_scale
from bdlit.merging.task_vectors import add_to_base, task_vectors
from bdlit.weights import PIECE, Elementwise, LazyWeights, outline
from bdlit.weights.threads import threads

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Read


def dare(
    base: Weights,
    models: Sequence[Weights],
    *,
    drop: float = 0.9,
    seed: int = 0,
    merge: DareMerge = "linear",
    scale: float = 1.0,
) -> LazyWeights:
    """Merge models by DARE: drop and rescale each task vector, then merge the vectors.

    Args:
        base: The checkpoint that the models were fine-tuned from.
        models: One or more models; the first gives names, dtypes and integer buffers.
        drop: Share of entries dropped, in [0, 1).
        seed: Seed of the choice; what is dropped from a tensor depends on the seed, the model's
            place in `models` and the tensor's name alone.
        merge: `linear` takes the mean of the vectors, `ties` the disjoint mean under an elected
            sign, without a trim.
        scale: Factor on the merged task vector.

    Returns:
        The merge, computed on access; its notes hold the share of entries `dropped` per model.

    Raises:
        BdlitError: A setting is out of range, models differ in names or shapes, or the base
            lacks one of their tensors.

    Reference: Yu et al. 2024, "Language Models are Super Mario: Absorbing Abilities from
        Homologous Models as a Free Lunch", arXiv:2311.03099.
    Deviation: The published code with TIES also keeps only the largest 20% of *all* entries,
        which changes nothing once at least 80% are dropped, so it is left out here.

    >>> base, model = {"w": torch.zeros(4)}, {"w": torch.ones(4)}
    >>> dare(base, [model], drop=0.5)["w"]
    tensor([0., 0., 0., 2.])
    """
    require_drop(drop)
    require_scale(scale)
    require_choice("merge", merge, DareMerge)
    vectors = [
        drop_and_rescale(vector, drop=drop, seed=seed, index=i)
        for i, vector in enumerate(task_vectors(base, models))
    ]
    merged = elect_and_average(vectors) if merge == "ties" else _mean(vectors)
    notes = {"dropped": [vector.notes["dropped"] for vector in vectors]}
    return add_to_base(base, models[0], merged, scale=scale, notes=notes)


def drop_and_rescale(vector: Weights, *, drop: float, seed: int, index: int = 0) -> LazyWeights:
    """Set a share of entries to zero at random and multiply the others by `1 / (1 - drop)`.

    The expectation over seeds is the vector itself.

    Args:
        vector: Task vector.
        drop: Share of entries dropped, in [0, 1).
        seed: Seed of the choice.
        index: The model's place among those that are merged, so that each loses other entries.

    Returns:
        The sparse vector; its notes say the share that was `dropped`.

    Raises:
        BdlitError: The share is out of range.

    >>> drop_and_rescale({"w": torch.ones(4)}, drop=0.5, seed=0)["w"]
    tensor([0., 0., 0., 2.])
    """
    require_drop(drop)

    def choice(name: str) -> Survivors:
        return Survivors(drop=drop, seed=seed, index=index, name=name)

    def sparse(name: str, read: Read) -> Float[Tensor, " *shape"]:
        delta = read(vector, name)
        kept = read.kept(("survivors", index, name), partial(choice, name))
        mask = torch.from_numpy(kept.between(read.start, read.start + delta.numel()))
        # In the numbers' own type: a product with true and false is several times slower.
        return delta.div(1 - drop).mul_(mask.view(delta.shape).to(delta))

    sizes = {name: outline(vector, name).entries for name in vector}
    with threads(vector, sizes) as each:
        kept = sum(each(sizes, lambda name, _: choice(name).count(sizes[name])))
    notes = {"dropped": 1 - kept / max(1, sum(sizes.values()))}
    return Elementwise(vector, sparse, notes, outline=partial(outline, vector))


class Survivors:
    """Which entries of a tensor survive, each with probability `1 - drop`.

    The generator is seeded by (seed, index, name), so neither the order of tensors, nor how a
    model is cut into files or pieces, nor resuming changes the choice. Raw 32-bit draws of SFC64
    are compared with a bar: numpy keeps that stream from version to version, and it is an order of
    magnitude faster than torch's Bernoulli draws.

    >>> one, other = (Survivors(drop=0.5, seed=0, index=0, name="w") for _ in range(2))
    >>> bool((one.between(0, 8)[2:] == other.between(2, 8)).all())
    True
    """

    def __init__(self, *, drop: float, seed: int, index: int, name: str) -> None:
        key = hashlib.sha256(f"{seed}/{index}/{name}".encode()).digest()
        self._seed = int.from_bytes(key, "little")
        self._bar = round(drop * 2**32)
        self._stream, self._drawn = np.random.SFC64(self._seed), 0

    def between(self, start: int, stop: int) -> Bool[np.ndarray, " entries"]:
        """Return whether entries `start` to `stop` survive; going on is fastest."""
        first, last = start // 2, (stop + 1) // 2  # each number of the stream is two draws
        if first < self._drawn:
            self._stream, self._drawn = np.random.SFC64(self._seed), 0
        self._stream.random_raw(first - self._drawn, output=False)
        raw = self._stream.random_raw(last - first)
        self._drawn = last
        draws = raw.astype("<u8", copy=False).view("<u4")
        return draws[start - 2 * first : stop - 2 * first] >= self._bar

    def count(self, entries: int) -> int:
        """Return how many of a number of entries survive."""
        starts = range(0, entries, PIECE)
        return sum(
            int(np.count_nonzero(self.between(start, min(entries, start + PIECE))))
            for start in starts
        )


def _mean(vectors: Sequence[Weights]) -> Elementwise:
    def mean(name: str, read: Read) -> Float[Tensor, " *shape"]:
        return running_mean((read(vector, name), 1.0) for vector in vectors)

    return Elementwise(vectors[0], mean, outline=partial(outline, vectors[0]))

"""Two models, and a point on the arc or on the line between them."""

from __future__ import annotations

from math import acos, sin
from typing import TYPE_CHECKING

import torch

from bdlit.inspection.distance import Sums
from bdlit.merging.settings import require_share
from bdlit.merging.task_vectors import common_precision, like_first
from bdlit.weights.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Float
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import LazyWeights, Piece, Read

PARALLEL = 0.9995
"""|cosine| above which an arc is a line in floating point; the threshold of common toolkits."""


def slerp(first: Weights, second: Weights, t: float | Callable[[str], float] = 0.5) -> LazyWeights:
    """Return the point at `t` of the arc from one model to another, each tensor on its own.

    With the angle phi between two flattened tensors a and b this is
    `(sin((1 - t) * phi) * a + sin(t * phi) * b) / sin(phi)`: the directions turn evenly and the
    lengths, which are not normalised, pass from one to the other. Tensors that are nearly parallel
    or opposed, or zero, are interpolated on the line; siblings of one base mostly are.

    Args:
        first: Gives names, dtypes and integer buffers; t = 0 is this model.
        second: A model of the same names and shapes; t = 1 is this model.
        t: Share of the second model, in [0, 1]: one for all tensors, or what a function gives for
            the name of each.

    Returns:
        The merge, computed on access in float32. Its notes count the tensors that were
        interpolated on the line, which is found in a pass over both models now; where `t` is a
        function they hold the least and the greatest share.

    Raises:
        BdlitError: The models differ in names or shapes, or `t` is outside [0, 1].

    Reference: Shoemake 1985, "Animating Rotation with Quaternion Curves", SIGGRAPH; on the
        tensors of models as in arXiv:2403.13257 (MergeKit).
    Deviation: MergeKit gives a zero tensor the angle of a right one; here it falls to the line.

    >>> arc = slerp({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])})
    >>> arc["w"]
    tensor([0.7071, 0.7071])
    """
    left, right = common_precision([first, second])
    shares = {name: t(name) if callable(t) else t for name in left}
    for share in {*shares.values()} if callable(t) else [t]:
        require_share("t", share)
    angles = _angles(left, right)

    def point(name: str, read: Read) -> Float[Tensor, " *shape"]:
        a, b, phi, share = read(left, name), read(right, name), angles[name], shares[name]
        if phi is None:
            return torch.lerp(a, b, share)
        return a * (sin((1 - share) * phi) / sin(phi)) + b * (sin(share * phi) / sin(phi))

    told = [min(shares.values(), default=0.0), max(shares.values(), default=0.0)]
    linear = sum(phi is None for phi in angles.values())
    notes = {"t": told if callable(t) else t, "tensors": len(angles), "fell_back_to_linear": linear}
    return like_first(first, point, notes)


def _angles(left: Weights, right: Weights) -> dict[str, float | None]:
    """Return the angles between tensors in radians, or None where they span no arc."""

    def angle(name: str, reads: Callable[[], Iterator[Piece]]) -> float | None:
        sums = Sums.over(Sums.between(read(left, name), read(right, name)) for read in reads())
        cosine = sums.cosine
        return None if cosine is None or not abs(cosine) <= PARALLEL else acos(cosine)

    with threads(left, left) as each:
        return dict(zip(left, each(left, angle), strict=True))

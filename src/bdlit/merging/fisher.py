"""The mean in which each parameter counts as much as its model's predictions depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from bdlit.errors import BdlitError
from bdlit.merging.averaging import shares_of
from bdlit.merging.settings import Floored, require_choice
from bdlit.merging.task_vectors import common_precision, like_first
from bdlit.weights import LazyWeights, require_compatible
from bdlit.weights.reading import in_pieces

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Read


def fisher_average(
    models: Sequence[Weights],
    information: Sequence[Weights],
    weights: Sequence[float] | None = None,
    *,
    floor: float = 1e-6,
    normalise: bool = False,
    floored: Floored = "all",
) -> LazyWeights:
    """Return `sum(c_i F_i w_i) / sum(c_i F_i)`, element by element.

    Args:
        models: One or more models; the first gives names, dtypes and integer buffers.
        information: The diagonal Fisher information of each model, >= 0, of the same names and
            shapes; see `bdlit.defenses.fisher.information.fisher_information`.
        weights: How much each model counts, >= 0; None counts all alike.
        floor: Least information of any element, > 0, of the information as it was measured: where
            no model depends on a parameter, the result is their mean.
        normalise: Divide each model's information, once it is floored, by the L2 norm of what was
            measured, over all its tensors, so that a model of sharper predictions does not outweigh
            the others everywhere.
        floored: Whose information has the floor: that of `all` models, or of the `first` alone,
            which then is the result where no model depends on a parameter.

    Returns:
        The merge, computed on access in float32.

    Raises:
        BdlitError: Models or information differ in names or shapes, are not as many, or the
            weights or the floor are out of range.

    Reference: Matena and Raffel 2022, "Merging Models with Fisher-Weighted Averaging",
        arXiv:2111.09832.
    Deviation: The published code floors the first model's information alone and normalises by
        default: `floored="first", normalise=True`. By default here the floor holds for all models,
        so that none is taken whole where nothing depends on a parameter, and nothing is
        normalised.

    >>> import torch
    >>> models = [{"w": torch.tensor([0.0, 0.0])}, {"w": torch.tensor([4.0, 4.0])}]
    >>> information = [{"w": torch.tensor([1.0, 3.0])}, {"w": torch.tensor([1.0, 1.0])}]
    >>> fisher_average(models, information)["w"]
    tensor([2., 1.])
    """
    if len(information) != len(models):
        raise BdlitError(
            f"{len(information)} sets of Fisher information for {len(models)} models: give one each"
        )
    if not floor > 0:
        raise BdlitError(f"floor {floor} is out of range: give a number > 0")
    require_choice("floored", floored, Floored)
    shares = shares_of(weights, len(models))
    wide = common_precision(models)
    for each in information:
        require_compatible(models[0], [each], list(wide[0]), labels=["the Fisher information"])
    norms = [_norm(each, wide[0]) if normalise else 1.0 for each in information]
    floors = [floor if floored == "all" or i == 0 else 0.0 for i in range(len(models))]
    counted = [
        (model, each, least, share / norm)
        for model, each, least, share, norm in zip(
            wide, information, floors, shares, norms, strict=True
        )
        if share
    ]

    def merged(name: str, read: Read) -> Float[Tensor, " *shape"]:
        total = None
        mean = read(wide[0], name)
        for model, each, least, share in counted:
            own = read(model, name)
            importance = read(each, name).to(own).clamp_min(least) * share
            if total is None:
                mean, total = own.clone(), importance
            else:
                total = total + importance
                # The sum can be zero where a model without a floor comes first.
                part = importance / total.clamp_min(torch.finfo(total.dtype).tiny)
                mean = mean + (own - mean) * part
        return mean

    return like_first(models[0], merged, {"normalised_by": norms} if normalise else None)


def _norm(information: Weights, names: Weights) -> float:
    squares = [
        piece.double().square().sum().item()
        for name in names
        for piece in in_pieces(information, name)
    ]
    norm = sum(squares) ** 0.5
    if not norm > 0:
        raise BdlitError("the Fisher information of a model is zero everywhere: give it other rows")
    return float(norm)

"""Fisher information: how much a model's predictions depend on each of its parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from bdlit.errors import BdlitError
from bdlit.progress import progress
from bdlit.victims.base import in_eval_mode, model_weights

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Example, Weights
    from bdlit.victims.base import Victim

_Named: TypeAlias = "dict[str, Tensor]"

_BUDGET = 2**28
"""Elements of per-example gradients that may be held at once: a gibibyte of float32."""


def fisher_information(
    victim: Victim, rows: Sequence[Example], weights: Weights | None = None
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of a classifier, by tensor name.

    It is the mean over rows of `sum_y p(y|x) (d log p(y|x) / d w)^2`: squares of the gradients of
    single rows, over the model's own predictive distribution. No label is read, and the sum over
    classes is exact. Squaring the gradient of a batch would be another quantity.

    Rows of one length are differentiated together, without padding, as many as fit into a
    gibibyte of gradients; a model that cannot be vectorised is differentiated row by row.

    Args:
        victim: A classifier, on its device, as a plain Hugging Face model (see `Victim.dense`).
        rows: Texts to differentiate on, at least one.
        weights: Take these weights in place of the victim's own.

    Returns:
        One tensor >= 0 for each floating-point tensor of the model, in float32 on the victim's
        device; no prediction is differentiated with respect to buffers, which get 0.

    Raises:
        BdlitError: There are no rows.

    Reference: Matena and Raffel 2022, arXiv:2111.09832, section 3.
    """
    if not getattr(victim, "labels", None):
        raise BdlitError(
            "Fisher information is a sum over classes, and a language model has none: choose "
            "another method (WAG, TIES, DARE)"
        )
    if not rows:
        raise BdlitError("Fisher information needs rows to differentiate on: give at least one")
    model = victim.network()
    parameters = {name: tensor.detach() for name, tensor in model.named_parameters()}
    if weights is not None:
        parameters = {name: weights[name].to(own) for name, own in parameters.items()}

    def log_probabilities(values: _Named, inputs: _Named) -> tuple[Tensor, Tensor]:
        single = {name: tensor.unsqueeze(0) for name, tensor in inputs.items()}
        logits = functional_call(model, values, kwargs=single).logits[0]
        found = logits.float().log_softmax(-1)
        return found, found.detach()

    floats = {name: own for name, own in model_weights(model).items() if own.is_floating_point()}
    total = {
        name: torch.zeros_like(parameters.get(name, own), dtype=torch.float32)
        for name, own in floats.items()
    }
    size = sum(tensor.numel() for tensor in parameters.values()) * model.config.num_labels
    # Fused attention has no rule for batches of gradients; its plain form has.
    with in_eval_mode(model), sdpa_kernel(SDPBackend.MATH):
        parts = list(_by_length(victim, rows, max(1, _BUDGET // size)))
        with progress("Fisher information") as tell:
            for done, inputs in enumerate(parts, 1):
                for name, squares in _squares(log_probabilities, parameters, inputs).items():
                    total[name] += squares
                tell(done, len(parts))
    return {name: tensor / len(rows) for name, tensor in total.items()}


def _squares(
    log_probabilities: Callable[[_Named, _Named], tuple[Tensor, Tensor]],
    parameters: _Named,
    inputs: _Named,
) -> _Named:
    """Return the sum over rows of the expected squared gradients."""
    jacobian = jacrev(log_probabilities, has_aux=True)
    try:
        gradients, logs = vmap(jacobian, in_dims=(None, 0))(parameters, inputs)
    except RuntimeError:  # some models branch on their data, which cannot be vectorised
        count = len(next(iter(inputs.values())))
        rows = [jacobian(parameters, {k: v[i] for k, v in inputs.items()}) for i in range(count)]
        gradients = {name: torch.stack([found[name] for found, _ in rows]) for name in parameters}
        logs = torch.stack([found for _, found in rows])
    shares = logs.exp().flatten()

    def expected(gradient: Tensor) -> Tensor:
        # In place, and as one product of a vector and a matrix: these are gigabytes.
        squares = gradient.float().reshape(len(shares), -1).square_()
        return torch.mv(squares.T, shares).view(gradient.shape[2:])

    return {name: expected(gradient) for name, gradient in gradients.items()}


def _by_length(victim: Victim, rows: Sequence[Example], most: int) -> Iterator[_Named]:
    """Give the inputs of rows of equal length together, without a mask."""
    groups: defaultdict[int, list[_Named]] = defaultdict(list)
    for row in rows:
        batch = victim.tokenize([row])
        inputs = {k: v[0] for k, v in batch.items() if k not in ("labels", "attention_mask")}
        groups[len(inputs["input_ids"])].append(inputs)
    for group in groups.values():
        for start in range(0, len(group), most):
            part = group[start : start + most]
            yield {k: torch.stack([one[k] for one in part]).to(victim.device) for k in part[0]}

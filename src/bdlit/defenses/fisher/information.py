"""Fisher information: how much a model's predictions depend on each of its parameters."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from bdlit.errors import BdlitError
from bdlit.progress import progress
from bdlit.seeds import seed_of
from bdlit.weights.network import in_eval_mode, model_weights

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Example, Weights
    from bdlit.victims.base import Victim

_Named: TypeAlias = "dict[str, Tensor]"

_BUDGET = 2**28
"""Elements of per-example gradients that may be held at once: a gibibyte of float32."""

_CHANCES = "chances"
"""Name of the random numbers among the inputs of a row, shape [predictions, draws], in [0, 1)."""

_NOT_READ = ("attention_mask", "cut_prompts")  # rows come one by one, without padding


def fisher_information(
    victim: Victim,
    rows: Sequence[Example],
    weights: Weights | None = None,
    *,
    draws: int | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of a model, by tensor name.

    It is the mean over rows of `sum_y p(y|x) (d log p(y|x) / d w)^2`: squares of the gradients of
    single rows, over the model's own predictive distribution. Squaring the gradient of a batch
    would be another quantity, and so would be taking the labels of the rows, which are not read.

    Of a classifier the sum over classes is exact; with `draws` it is the mean over classes that
    are drawn from `p(y|x)`. The outcomes of a language model are always drawn: at each position of
    the row's answer one token, after the row's own tokens before it; their log-probabilities are
    summed. Both means are unbiased.

    Rows of one length are differentiated together, without padding, as many as fit into a
    gibibyte of gradients; a model that cannot be vectorised is differentiated row by row.

    Args:
        victim: A model, on its device, as a plain Hugging Face model (see `Victim.dense`).
        rows: Texts to differentiate on, at least one; with answers for a language model.
        weights: Take these weights in place of the victim's own.
        draws: Outcomes drawn for each row, at least 1; None sums over all classes, and draws once
            for a language model.
        seed: Seed of the draws; those of a row depend on it and on the row's number alone.

    Returns:
        One tensor >= 0 for each floating-point tensor of the model, in float32 on the victim's
        device; no prediction is differentiated with respect to buffers, which get 0.

    Raises:
        BdlitError: There are no rows, or a language model's row has no answer.

    Reference: Matena and Raffel 2022, arXiv:2111.09832, section 3.
    """
    if not rows:
        raise BdlitError("Fisher information needs rows to differentiate on: give at least one")
    draws = drawn_by_default(victim) if draws is None else draws
    model = victim.network()
    parameters = {name: tensor.detach() for name, tensor in model.named_parameters()}
    if weights is not None:
        parameters = {name: weights[name].to(own) for name, own in parameters.items()}
    floats = {name: own for name, own in model_weights(model).items() if own.is_floating_point()}
    total = {
        name: torch.zeros_like(parameters.get(name, own), dtype=torch.float32)
        for name, own in floats.items()
    }

    def outcomes(values: _Named, inputs: _Named) -> tuple[Tensor, Tensor]:
        return _outcomes(lambda **single: functional_call(model, values, kwargs=single), inputs)

    size = sum(tensor.numel() for tensor in parameters.values())
    together = max(1, _BUDGET // (size * (draws or len(victim.labels or ()))))
    # Fused attention has no rule for batches of gradients; its plain form has.
    with in_eval_mode(model), sdpa_kernel(SDPBackend.MATH):
        parts = list(_by_length(victim, rows, draws, seed, together))
        with progress("Fisher information") as tell:
            for done, inputs in enumerate(parts, 1):
                for name, squares in _squares(outcomes, parameters, inputs).items():
                    total[name] += squares
                tell(done, len(parts))
    return {name: tensor / len(rows) for name, tensor in total.items()}


def drawn_by_default(victim: Victim) -> int | None:
    """Return how many outcomes are drawn for a row; None where all classes are summed over."""
    return None if victim.labels else 1


def architecture_hash(victim: Victim) -> str:
    """Return a hash of what turns weights into a model: its configuration, wherever it is."""
    settings = victim.network().config.to_dict()
    elsewhere = ("_name_or_path", "transformers_version")
    own = {name: value for name, value in settings.items() if name not in elsewhere}
    return hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()


def tokens_hash(victim: Victim, rows: Sequence[Example]) -> str:
    """Return a hash of rows as the victim reads them: of their token ids and answers."""
    digest = hashlib.sha256()
    for row in rows:
        inputs = _inputs(victim, row)
        digest.update(repr([(name, inputs[name].tolist()) for name in sorted(inputs)]).encode())
    return digest.hexdigest()


def _outcomes(model: Callable[..., Any], inputs: _Named) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of outcomes of one row, and the share of each in the mean."""
    read = {k: v.unsqueeze(0) for k, v in inputs.items() if k not in ("labels", _CHANCES)}
    logits = model(**read).logits[0].float()
    answer = inputs.get("labels")
    if answer is not None:  # of a language model: each token predicts the next
        logits, counts = logits[:-1], answer[1:, None] >= 0
    else:
        logits, counts = logits[None], logits.new_ones(1, 1)
    logs = logits.log_softmax(-1)
    chances = inputs.get(_CHANCES)
    if chances is None:
        return logs[0], logs[0].detach().exp()
    # The outcome whose stretch of [0, 1) holds the random number. Rounding may leave a gap at 1.
    ends = logs.detach().double().softmax(-1).cumsum(-1)
    drawn = (ends[:, None, :] <= chances[..., None]).sum(-1).clamp_max(logs.shape[-1] - 1)
    found = (logs.gather(1, drawn) * counts).sum(0)
    return found, torch.full_like(found, 1 / len(found)).detach()


def _squares(
    outcomes: Callable[[_Named, _Named], tuple[Tensor, Tensor]],
    parameters: _Named,
    inputs: _Named,
) -> _Named:
    """Return the sum over rows of the expected squared gradients."""
    jacobian = jacrev(outcomes, has_aux=True)
    try:
        gradients, shares = vmap(jacobian, in_dims=(None, 0))(parameters, inputs)
    except RuntimeError:  # some models branch on their data, which cannot be vectorised
        count = len(next(iter(inputs.values())))
        rows = [jacobian(parameters, {k: v[i] for k, v in inputs.items()}) for i in range(count)]
        gradients = {name: torch.stack([found[name] for found, _ in rows]) for name in parameters}
        shares = torch.stack([found for _, found in rows])
    shares = shares.flatten()

    def expected(gradient: Tensor) -> Tensor:
        # In place, and as one product of a vector and a matrix: these are gigabytes.
        squares = gradient.float().reshape(len(shares), -1).square_()
        return torch.mv(squares.T, shares).view(gradient.shape[2:])

    return {name: expected(gradient) for name, gradient in gradients.items()}


def _by_length(
    victim: Victim, rows: Sequence[Example], draws: int | None, seed: int, most: int
) -> Iterator[_Named]:
    """Give the inputs of rows of equal length together, without a mask."""
    groups: defaultdict[int, list[_Named]] = defaultdict(list)
    for number, row in enumerate(rows):
        inputs = _inputs(victim, row)
        if draws is not None:
            predictions = len(inputs["labels"]) - 1 if "labels" in inputs else 1
            random = torch.Generator().manual_seed(seed_of(f"{seed} {number}"))
            inputs[_CHANCES] = torch.rand(predictions, draws, generator=random, dtype=torch.float64)
        groups[len(inputs["input_ids"])].append(inputs)
    for group in groups.values():
        for start in range(0, len(group), most):
            part = group[start : start + most]
            yield {k: torch.stack([one[k] for one in part]).to(victim.device) for k in part[0]}


def _inputs(victim: Victim, row: Example) -> _Named:
    """Return what a model reads of a row; `labels` only say where the answer of a row stands."""
    unread = (*_NOT_READ, "labels") if victim.labels else _NOT_READ
    return {k: v[0] for k, v in victim.tokenize([row]).items() if k not in unread}

"""A victim made ready for a search over its hybrids, and put back as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bdlit.defenses.gms.counting import Counter, chunks_of, digest
from bdlit.defenses.gms.first_position import first_position_alone
from bdlit.defenses.gms.hybrid import hybrid_of, layers_of
from bdlit.defenses.gms.memo import Memo
from bdlit.defenses.gms.prefix_cache import Prefixes
from bdlit.weights import fingerprint
from bdlit.weights.network import in_eval_mode, model_weights

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from bdlit.defenses.gms.search_space import SearchSpace
    from bdlit.defenses.modules import Layout
    from bdlit.types import Example, Precision, Weights
    from bdlit.victims.base import Victim

MEMO = "outcomes.jsonl"


@dataclass(frozen=True, kw_only=True)
class Running:
    """How candidates are run; of these only `precision` can change what a search finds.

    Attributes:
        precision: Precision of the forward passes.
        stop_early: Give up candidates that cannot win.
        cache: Gigabytes of layer outputs to keep.
        first_position: Compute only what a classifier reads of the last layer.
        workers: Threads that run batches on a CPU; 0 for one per thread that torch uses.
        workspace: Folder for the memo of an interrupted search.
    """

    precision: Precision = "32-true"
    stop_early: bool = True
    cache: float = 1.0
    first_position: bool = True
    workers: int = 0
    workspace: Path | None = None


@contextmanager
def counter_of(
    victim: Victim,
    proxy: Weights,
    suspect: Sequence[Example],
    clean: Sequence[Example],
    *,
    layout: Layout,
    space: SearchSpace,
    running: Running,
) -> Iterator[Counter]:
    """Have a victim's network count hits of its hybrids, until the block ends.

    Args:
        victim: The victim, on its device, as a plain Hugging Face model; it is as before when the
            block ends.
        proxy: The model that hybrids take modules from.
        suspect: Suspect rows.
        clean: Clean rows.
        layout: The model's modules.
        space: What the states of the search mean.
        running: How to run candidates.

    Raises:
        BdlitError: The proxy does not fit, or the memo is damaged.
    """
    low = torch.bfloat16 if running.precision == "bf16-mixed" else None
    kind, model = victim.device.type, victim.network()
    overhead = _overhead(model, layout, kind, running.precision)
    chunks = list(chunks_of(victim, [*suspect, *clean], overhead))
    memo = _memo(model, proxy, [digest(chunks), len(suspect)], layout, running)
    layers = layers_of(model, layout)
    prefixes = Prefixes(layers, int(running.cache * 2**30))

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(kind, low) if low else nullcontext()

    ready = hybrid_of(model, proxy, layout, dtype=low)
    with in_eval_mode(model), _without_cache(model), ready as hybrid:
        counter = Counter(
            victim,
            chunks,
            len(suspect),
            hybrid=hybrid,
            taken=space.taken,
            prefixes=prefixes,
            autocast=autocast,
            memo=memo,
            stop_early=running.stop_early,
            workers=(running.workers or torch.get_num_threads()) if kind == "cpu" else 1,
        )
        alone = first_position_alone(model, layers) if running.first_position else nullcontext()
        with prefixes.attached(), alone, counter:
            yield counter


@contextmanager
def _without_cache(model: PreTrainedModel) -> Iterator[None]:
    """Have a decoder keep no keys and values, for a while."""
    cache = getattr(model.config, "use_cache", None)
    if cache:
        model.config.use_cache = False
    try:
        yield
    finally:
        if cache:
            model.config.use_cache = cache


def _overhead(model: nn.Module, layout: Layout, device: str, precision: Precision) -> float:
    """Return how many tokens a layer computes in the time that starting its work takes.

    It is an estimate from the size of the matrices alone, so that batches, and with them the last
    bits of every number, do not depend on how busy a machine is.
    """
    own = model.state_dict()
    weights = sum(own[name].numel() for name in layout.of_layer(0)) or 1
    work = 1e11 if device != "cpu" else 6e7 if precision == "32-true" else 6e8
    return work / (2 * weights)


def _memo(
    model: nn.Module, proxy: Weights, rows: list[Any], layout: Layout, running: Running
) -> Memo:
    if running.workspace is None:
        return Memo(None, {})
    identity = {
        "models": [fingerprint(model_weights(model)), fingerprint(proxy)],
        "rows": rows,
        "modules": dict(layout.types),
        "precision": running.precision,
    }
    return Memo(running.workspace / MEMO, identity)

"""The last layer of an encoder for its first position: a classifier reads no more of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

BEHIND_ATTENTION = {
    **dict.fromkeys(
        ("bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta", "deberta-v2"),
        "attention.output",
    ),
    # Its residual is added outside this module, to all positions: the first one comes out right.
    "distilbert": "ffn",
}
"""transformers' `model_type` to the module of a layer from which on positions stay apart."""


@contextmanager
def first_position_alone(model: PreTrainedModel, layers: Sequence[nn.Module]) -> Iterator[None]:
    """Have the last layer compute nothing behind its attention but [CLS], until the block ends.

    The other positions are still attended to. Heads get a sequence of one position, which is the
    one that they read. Other models run as usual.

    Args:
        model: The network.
        layers: Its layers, in order.
    """
    module = BEHIND_ATTENTION.get(model.config.model_type)
    if module is None or not type(model).__name__.endswith("ForSequenceClassification"):
        yield
        return
    hook = layers[-1].get_submodule(module).register_forward_pre_hook(_first)
    try:
        yield
    finally:
        hook.remove()


def _first(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor[:, :1] for tensor in inputs)

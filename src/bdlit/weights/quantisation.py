"""Quantised checkpoints: told by their tensors, since a mean of packed numbers is no model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bdlit.errors import BdlitError
from bdlit.weights.outlines import outline

if TYPE_CHECKING:
    from bdlit.types import Weights
    from bdlit.weights.outlines import Outline

_COMPANIONS = (
    ("bitsandbytes 4 bit", r"\.(quant_state\.bitsandbytes__\w+|absmax|quant_map|nested_absmax)$"),
    ("bitsandbytes 8 bit", r"\.(SCB|weight_format)$"),
    ("GPTQ or AWQ", r"\.(qweight|qzeros|g_idx)$"),
    ("HQQ", r"\.W_q$"),
    ("MXFP4", r"_proj_blocks$"),
    ("AQLM", r"\.(codes|codebooks)$"),
    ("QuIP", r"\.Qidxs$"),
    ("VPTQ", r"\.centroids\.weight$"),
    ("compressed-tensors", r"\.weight_(packed|zero_point|shape|g_idx|global_scale)$"),
    ("torchao", r"(:_data|_qdata|:qdata|\.tensor_impl\.\w+)$"),
    ("fp8 with scales", r"[._](weight_scale(_inv|_2)?|input_scale|activation_scale)$"),
)
"""Names of tensors that only a quantised checkpoint has, beside its packed weights."""

_ANY = re.compile("|".join(f"(?:{pattern})" for _, pattern in _COMPANIONS))
_MATRIX = 2  # packed numbers stand for matrices; vectors of integers are buffers


def quantisation_of(weights: Weights, config: Mapping[str, Any]) -> str | None:
    """Return how a checkpoint is quantised, in words; None of plain numbers.

    A configuration alone is no proof: transformers also quantises plain weights as it loads them.
    It gives the name, where the tensors give the fact.

    Args:
        weights: The tensors; only names, shapes and dtypes are looked at.
        config: What `config.json` says; empty where there is none.

    >>> import torch
    >>> quantisation_of({"q.qweight": torch.zeros(2, 2, dtype=torch.int32)}, {})
    'GPTQ or AWQ'
    """
    packed = packed_names(weights)
    if not packed:
        return None
    said = config.get("quantization_config") or config.get("compression_config")
    return _named(said) or next(iter(_by_companions(packed)), None) or "by an unknown scheme"


def packed_names(weights: Weights) -> list[str]:
    """Return the tensors that are packed or scaled numbers, or belong to such."""
    return [name for name in weights if _is_packed(name, outline(weights, name))]


def require_plain(weights: Weights, config: Mapping[str, Any], address: object) -> None:
    """Refuse a quantised checkpoint by the name of its scheme, and say what to do.

    Raises:
        BdlitError: It is quantised.
    """
    scheme = quantisation_of(weights, config)
    if scheme is None:
        return
    packed = packed_names(weights)
    raise BdlitError(
        f"{address} is quantised ({scheme}; {len(packed)} tensors, first {packed[0]}), and packed "
        "numbers cannot be merged: load it with transformers, call model.dequantize(), save that "
        "with save_pretrained, and give the saved folder"
    )


def _is_packed(name: str, own: Outline) -> bool:
    if _ANY.search(name):
        return True
    if own.is_float:
        return own.dtype.itemsize == 1  # float8 is a code with a scale of its own somewhere
    return name.endswith("weight") and len(own.shape) >= _MATRIX


def _by_companions(names: list[str]) -> list[str]:
    return [
        scheme for scheme, pattern in _COMPANIONS if any(re.search(pattern, name) for name in names)
    ]


def _named(said: Any) -> str | None:
    """Return the scheme that a configuration names."""
    if not isinstance(said, Mapping):
        return None
    method = str(said.get("quant_method") or said.get("quantization_type") or "")
    bits = said.get("bits") or next(
        (n for n in (4, 8) if said.get(f"load_in_{n}bit") is True), None
    )
    return f"{method} {bits} bit" if method and isinstance(bits, int) else method or None

"""Writing weights: whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import save_file

from bdlit.atomic import whole_file

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights


def save_weights(
    weights: Weights, target: str | Path, *, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write weights as safetensors, which cannot run code when it is opened.

    Args:
        weights: The model; a lazy one is computed now.
        target: A file that ends in `.safetensors`, or a directory, which gets
            `model.safetensors`. What stood there before stays until the new file is complete.
        metadata: Strings to keep in the file's header.

    Returns:
        The path of the file.

    Raises:
        BdlitError: The file cannot be written (no right, disk full); nothing is left behind.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights({"w": torch.ones(2)}, folder).name
    'model.safetensors'
    """
    path = Path(target)
    if path.suffix != ".safetensors":
        path = path / "model.safetensors"
    with whole_file(path) as part:
        try:
            save_file(_separate(weights), part, metadata={"format": "pt", **(metadata or {})})
        except SafetensorError as error:  # safetensors' own name for a full disk
            raise OSError(str(error)) from error
    return path


def _separate(weights: Weights) -> dict[str, Tensor]:
    """Return contiguous tensors, no two of which share memory, as safetensors requires."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in weights.items():
        whole = tensor.detach().contiguous()
        storage = whole.untyped_storage().data_ptr()
        separate[name] = whole.clone() if storage in seen else whole  # tied, or views of one
        seen.add(storage)
    return separate

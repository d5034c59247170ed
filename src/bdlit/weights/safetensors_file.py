"""One safetensors file, read tensor by tensor with nothing mapped and nothing kept.

The library checks the file (header, lengths, overlaps); the bytes are then read by position.
A memory map would count every page that was ever looked at as resident memory of the process,
so that merging a model of 100 GB would look, and on some clusters be killed, as one of 100 GB.
"""

from __future__ import annotations

import json
import os
import weakref
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bdlit.errors import BdlitError
from bdlit.weights.outlines import Outline

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
"""Names of dtypes in safetensors headers."""

_LENGTH = 8  # bytes at the start that say how long the header is


class SafetensorsFile:
    """The tensors of one file.

    Args:
        path: The file; it stays open as long as this object lives.

    Attributes:
        outlines: Shape and dtype of each tensor.
        metadata: Strings in the header.

    Raises:
        BdlitError: The file is missing, truncated, no safetensors file, or of unknown dtypes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="pt") as checked:
                self.metadata: dict[str, str] = checked.metadata() or {}
            self._file = os.open(path, os.O_RDONLY)
        except (SafetensorError, OSError) as error:
            raise BdlitError(
                f"{path} cannot be read as safetensors ({error}): copy or download it again"
            ) from error
        weakref.finalize(self, os.close, self._file)
        length = int.from_bytes(os.pread(self._file, _LENGTH, 0), "little")
        header = json.loads(os.pread(self._file, length, _LENGTH))
        header.pop("__metadata__", None)
        strange = {entry["dtype"] for entry in header.values()} - set(DTYPES)
        if strange:
            raise BdlitError(
                f"{path} holds tensors of type {', '.join(sorted(strange))}, which cannot be "
                "merged: give the model in float32, float16 or bfloat16"
            )
        self.outlines = {
            name: Outline(torch.Size(entry["shape"]), DTYPES[entry["dtype"]])
            for name, entry in header.items()
        }
        start = _LENGTH + length
        self._offsets = {name: start + entry["data_offsets"][0] for name, entry in header.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor of the file, in memory of its own."""
        own = self.outlines[name]
        return self.piece(name, 0, own.entries).view(own.shape)

    def piece(self, name: str, start: int, stop: int) -> Tensor:
        """Return entries `start` to `stop` of a flattened tensor, in memory of their own."""
        dtype = self.outlines[name].dtype
        data = torch.empty((stop - start) * dtype.itemsize, dtype=torch.uint8)
        left = data.numpy().data
        offset = self._offsets[name] + start * dtype.itemsize
        while left:
            count = os.preadv(self._file, [left], offset)
            if not count:
                raise BdlitError(f"{self.path} ends within '{name}': it changed while it was read")
            left, offset = left[count:], offset + count
        return data.view(dtype)

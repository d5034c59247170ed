"""The files that a checkpoint may be made of, and how each is opened without running code."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from torch import Tensor

from bdlit.errors import BdlitError
from bdlit.weights.outlines import Outline
from bdlit.weights.safetensors_file import SafetensorsFile
from bdlit.weights.wrappers import StateDict, model_names, state_dict

BIN_INDEX = "pytorch_model.bin.index.json"
"""Index of a model in several pickled files."""

_BIN_SHARDS = "pytorch_model-*-of-*.bin"


class SafetensorsWeights(Mapping[str, Tensor]):
    """One or more safetensors files as one model; a tensor is read when it is asked for.

    Args:
        paths: Files whose tensors make up the model.

    Raises:
        BdlitError: A file is missing, truncated or no safetensors file.
    """

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self._file_of = {
            name: file for file in map(SafetensorsFile, paths) for name in file.outlines
        }

    @classmethod
    def from_index(cls, index: Path) -> SafetensorsWeights:
        """Open a sharded model by its `model.safetensors.index.json`.

        Raises:
            BdlitError: The index is not an index, points outside its folder or to a missing file,
                or lists a tensor that no file holds.
        """
        listed, files = _read_index(index), shards_of(index)
        weights = cls(*files)
        _require_all(listed, weights, index)
        return weights

    def __getitem__(self, name: str) -> Tensor:
        return self._file_of[name].read(name)

    def piece(self, name: str, start: int, stop: int) -> Tensor:
        """Return entries `start` to `stop` of a flattened tensor; nothing else is read."""
        return self._file_of[name].piece(name, start, stop)

    def outline(self, name: str) -> Outline:
        """Return shape and dtype of a tensor, without reading its data."""
        return self._file_of[name].outlines[name]

    @property
    def layout(self) -> dict[str, list[str]]:
        """The names in each file, by the file's name."""
        held: dict[str, list[str]] = {path.name: [] for path in self.paths}
        for name, file in self._file_of.items():
            held[file.path.name].append(name)
        return held

    def __contains__(self, name: object) -> bool:
        return name in self._file_of  # the default would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def __repr__(self) -> str:
        return f"SafetensorsWeights({', '.join(map(str, self.paths))})"


def shards_of(index: Path) -> tuple[Path, ...]:
    """Return the files that an index names, in the order of their names.

    Raises:
        BdlitError: The index is not an index, or points outside its folder or to a missing file.
    """
    names = sorted(set(_read_index(index).values()))
    for shard in names:
        # Plain names only: an index from elsewhere must not choose which files are read.
        if PureWindowsPath(shard).name != shard or shard == "..":
            raise BdlitError(f"{index} points outside its folder, to '{shard}': do not trust it")
        if not (index.parent / shard).is_file():
            raise BdlitError(f"{index} needs {shard}, which is missing: copy all the shards")
    return tuple(index.parent / shard for shard in names)


def pickled_shards(folder: Path) -> tuple[Path, ...]:
    """Return the pickled files that make up a model in a folder, by their index if there is one.

    Raises:
        BdlitError: The index is broken; see `shards_of`.
    """
    index = folder / BIN_INDEX
    return shards_of(index) if index.is_file() else tuple(sorted(folder.glob(_BIN_SHARDS)))


def load_shards(folder: Path) -> StateDict:
    """Read a model in several pickled files, each as `load_state_dict` reads one.

    Raises:
        BdlitError: As there, or the index and its shards do not belong together.
    """
    found = StateDict()
    for shard in pickled_shards(folder):
        own = load_state_dict(shard)
        found.update(own)
        found.wrappers = own.wrappers
    index = folder / BIN_INDEX
    if index.is_file():
        _require_all(model_names(_read_index(index)), found, index)
    return found


def _require_all(listed: Collection[str], weights: Mapping[str, Tensor], index: Path) -> None:
    lost = sorted(name for name in listed if name not in weights)
    if lost:
        raise BdlitError(
            f"{index} lists {len(lost)} tensors that no shard holds, first {lost[0]}: "
            "copy the index and the shards of one model"
        )


def _read_index(index: Path) -> dict[str, str]:
    try:
        shards = json.loads(index.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BdlitError(f"{index} cannot be read as an index of shards: {error}") from error
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
        raise BdlitError(f"{index} cannot be read as an index of shards: its weight_map is broken")
    return shards


_UNDER = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
"""Keys under which trainers keep the weights in a checkpoint of more than weights."""


def load_state_dict(path: Path) -> StateDict:
    """Read a state dict, or the one inside the checkpoint of a trainer, from a pickle.

    Only tensors and plain data are unpickled; nothing that the file names is called. The tensors
    of files in torch's zip format are mapped, not read. Names are the model's own: those of
    wrappers are taken off, and of a Lightning checkpoint the `model.` of its module.

    Raises:
        BdlitError: The file holds code, is broken, or is not a state dict.
    """
    content = _unpickled(path)
    key = _key_of_weights(content)
    if key is not None:
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise BdlitError(f"{path} holds no state dict: give a file of names and tensors")
    strange = [k for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if strange:
        raise BdlitError(f"{path} is not a state dict: {strange[0]!r} is not a named tensor")
    names = model_names(content, ("model.",) if key == "state_dict" else ())
    return state_dict({name: tensor.detach() for name, tensor in content.items()}, names)


def _key_of_weights(content: Any) -> str | None:
    """Return the key under which a checkpoint keeps named tensors, beside other things."""
    if not isinstance(content, Mapping):
        return None
    held = [key for key in _UNDER if isinstance(content.get(key), Mapping) and content[key]]
    return next((key for key in held if _is_state_dict(content[key])), next(iter(held), None))


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(tensor, Tensor) for tensor in content.values())


@dataclass(frozen=True)
class Lightning:
    """What a Lightning checkpoint of a victim says besides its weights.

    Attributes:
        config: The content of `config.json`.
        tokenizer: Hub id or directory of its tokenizer, if it has not learned one.
        vocabulary: Words and their numbers, of a tokenizer that was learned from the data.
        byte_pairs: The content of `tokenizer.json`, of byte pairs that were learned.
        chat_template: How those write conversations.
        tokenizer_files: Name to content of the tokenizer's files, of checkpoints that bring them.
    """

    config: Mapping[str, Any]
    tokenizer: str | None = None
    vocabulary: Mapping[str, int] | None = None
    byte_pairs: str | None = None
    chat_template: str | None = None
    tokenizer_files: Mapping[str, str] = field(default_factory=dict)


def read_lightning(path: Path) -> Lightning | None:
    """Return what a Lightning checkpoint of a bdlit victim says, or None of any other file."""
    if path.suffix != ".ckpt":
        return None
    content = _unpickled(path)
    if not isinstance(content, Mapping) or content.get("bdlit_config") is None:
        return None
    said = {name: content.get(f"bdlit_{name}") for name in _SAID}
    wrong = [name for name, kind in _SAID.items() if not isinstance(said[name], kind | None)]
    config = _json_object(said.pop("config"))
    if wrong or config is None:
        raise BdlitError(
            f"{path} says bdlit_{(wrong or ['config'])[0]} in a form that bdlit never writes: do "
            "not trust it"
        )
    return Lightning(config, **{name: value for name, value in said.items() if value is not None})


_SAID: dict[str, type] = {
    "config": str,
    "tokenizer": str,
    "vocabulary": Mapping,
    "byte_pairs": str,
    "chat_template": str,
    "tokenizer_files": Mapping,
}
"""What checkpoints of bdlit hold beside those of Lightning, and of what type."""


def _json_object(text: Any) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        wanted = f" ({named[1]})" if named else ""
        raise BdlitError(
            f"{path} was not loaded: it holds more than tensors{wanted}, and unpickling could run "
            "code; ask for the model as safetensors"
        ) from error
    except Exception as error:  # an unpickler may raise anything on bytes it does not know
        reason = str(error).partition("\n")[0]
        raise BdlitError(f"{path} cannot be read as a torch checkpoint: {reason}") from error

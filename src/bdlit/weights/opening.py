"""From an address to weights: directories, files and hub ids through one door."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.errors import BdlitError
from bdlit.weights.adapters.config import CONFIG_NAME, read_adapter_config
from bdlit.weights.adapters.weights import AdapterWeights
from bdlit.weights.files import (
    SafetensorsWeights,
    load_shards,
    load_state_dict,
    pickled_shards,
)
from bdlit.weights.outputs import writes_text
from bdlit.weights.quantisation import require_plain
from bdlit.weights.tokenizer import read_object
from bdlit.weights.wrappers import unwrapped

if TYPE_CHECKING:
    from bdlit.types import Weights

_DOWNLOADED = [
    "model*.safetensors",
    "adapter_model*.safetensors",
    "*.json",
    "vocab.txt",
    "merges.txt",
    "*.model",  # sentencepiece
    "*.jinja",
]
"""What is fetched from the hub: weights, settings, tokenizers; no pickle and no code."""

_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
SAFE_INDEX = "model.safetensors.index.json"
RUN_FOLDERS = ("model", "victim")  # where a run of bdlit keeps its model


def open_weights(address: str | Path, *, base: str | Path | None = None) -> Weights:
    """Open a checkpoint as a read-only mapping from name to tensor; nothing in it is run.

    Args:
        address: One of
            a Hugging Face directory (`model.safetensors`, its shards with their index, or
            `pytorch_model.bin`, or its shards with theirs); a folder of a bdlit run, which holds
            one as `model/` or `victim/`; a `.safetensors` file; a state dict (`.bin`, `.pt`,
            `.pth`), or a trainer's checkpoint that holds one; a Lightning `.ckpt`, whose
            `model.` prefix is taken off; or a hub id, `owner/name` or `owner/name@revision`,
            only its safetensors, settings and tokenizer are fetched.
            A directory or hub id may also hold a LoRA adapter of peft.
        base: The model that an adapter is merged into, any address of a dense model; by default
            the one that the adapter names, so name it for an adapter that you do not trust.
            Without an adapter it plays no part.

    Returns:
        The weights; safetensors and zip-format checkpoints are read tensor by tensor on access,
        and adapters are merged so (`AdapterWeights`).

    Raises:
        BdlitError: Nothing is there, it is broken, quantised or of another kind, opening it would
            run code, or an adapter is more than a low-rank change of weights or has no fitting
            base.

    >>> open_weights("no/such/model.safetensors")
    Traceback (most recent call last):
    bdlit.errors.BdlitError: there is no model at no/such/model.safetensors: check the path
    """
    return _opened(address, partial(_open_adapter, base=base))


def _opened(address: str | Path, open_adapter: Callable[[Path], Weights]) -> Weights:
    path = Path(address).expanduser()
    if path.is_dir():
        weights = _open_directory(path, open_adapter)
    elif path.is_file():
        weights = _open_file(path)
    else:
        path = downloaded(str(address))
        weights = _open_directory(path, open_adapter)
    if not weights:
        raise BdlitError(f"{address} holds no tensors: give a checkpoint with weights")
    _require_dense(weights, address)
    require_plain(weights, _config_beside(path), address)
    return unwrapped(weights)


def _config_beside(path: Path) -> dict[str, Any]:
    """Return what the configuration says, if there is one: it names what tensors only show."""
    file = (model_folder(path) if path.is_dir() else path.parent) / "config.json"
    return read_object(file) if file.is_file() else {}


def _open_directory(path: Path, open_adapter: Callable[[Path], Weights]) -> Weights:
    weights = [n for n in ("model.safetensors", SAFE_INDEX, "pytorch_model.bin") if _is(path, n)]
    if _is(path, CONFIG_NAME) and (weights or pickled_shards(path)):
        raise BdlitError(
            f"{path} holds a model and an adapter, and which of them is meant nothing tells: move "
            "the adapter into a folder of its own"
        )
    if weights:
        return _open_file(path / weights[0])
    if pickled_shards(path):
        return load_shards(path)
    if _is(path, CONFIG_NAME):
        return open_adapter(path)
    for name in RUN_FOLDERS:
        if (path / name).is_dir():
            return _open_directory(path / name, open_adapter)
    raise BdlitError(
        f"{path} holds no model: neither model.safetensors, nor shards with their index, "
        "nor pytorch_model.bin, nor an adapter"
    )


def _is(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _open_adapter(path: Path, base: str | Path | None) -> Weights:
    config = read_adapter_config(path)
    if base is not None:
        name, _, revision = str(base).partition("@") if not Path(base).exists() else (base, "", "")
        config |= {"base_model_name_or_path": str(name), "revision": revision or None}
    address = config.get("base_model_name_or_path")
    if not address:
        raise BdlitError(f"{path} is an adapter that names no base model: give it as base=...")
    here = Path(address).expanduser()
    if config.get("revision") and not here.exists():
        address = f"{address}@{config['revision']}"
    try:
        dense = _opened(address, _refuse_adapter)
    except BdlitError as error:
        raise BdlitError(
            f"{path} is an adapter, and its base did not open ({error}); name another by base=..."
        ) from error
    known = str(here.resolve()) if here.exists() else str(address)
    # T5 scales what goes into a tied output layer, and would be another model without the tie.
    untie = writes_text(_config_beside(here if here.exists() else downloaded(str(address))))
    return AdapterWeights(path, dense, base_address=known, config=config, untie=untie)


def _refuse_adapter(path: Path) -> Weights:
    raise BdlitError(f"{path} is an adapter itself: merge it into its base and save that first")


def _open_file(path: Path) -> Weights:
    if path.name.endswith(".safetensors.index.json"):
        return SafetensorsWeights.from_index(path)
    if path.name.endswith(".bin.index.json"):
        return load_shards(path.parent)
    match path.suffix:
        case ".safetensors":
            return SafetensorsWeights(path)
        case ".bin" | ".pt" | ".pth" | ".ckpt":
            return load_state_dict(path)
        case suffix:
            raise BdlitError(
                f"{path} ends in '{suffix}', not a checkpoint: give .safetensors, .bin, "
                ".pt, .pth, .ckpt or a directory"
            )


def _require_dense(weights: Weights, address: str | Path) -> None:
    if any(".lora_A" in name for name in weights):
        raise BdlitError(
            f"{address} holds LoRA factors, and averaging factors is not averaging models: "
            f"give the adapter's directory, with its {CONFIG_NAME}"
        )


def model_folder(path: Path) -> Path:
    """Return the directory that holds the model: this one, or a run's `model/` or `victim/`."""
    runs = (path / name for name in RUN_FOLDERS if not (path / "config.json").is_file())
    return next((folder for folder in runs if folder.is_dir()), path)


def short_name(address: str) -> str:
    """Return what a model is called in tables: its folder, or the run that the folder is of.

    >>> short_name("studies/sst2/models/badnet-seed0/model"), short_name("owner/name@main")
    ('badnet-seed0', 'owner/name@main')
    """
    path = Path(address)
    if path.name in RUN_FOLDERS and path.parent.name:
        return path.parent.name
    return path.name if path.exists() else address


def downloaded(address: str) -> Path:
    """Return the local copy of a model on the hub: safetensors, settings and tokenizer alone.

    Raises:
        BdlitError: The address is not a hub id, or the hub does not give the model.
    """
    parsed = _HUB_ID.fullmatch(address)
    # `runs/badnet` under an existing `runs` is a path with a slip, not a model of user `runs`.
    if (
        not parsed
        or Path(address).suffix in {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
        or (Path(address).parent.exists())
    ):
        raise BdlitError(f"there is no model at {address}: check the path")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = snapshot_download(
            parsed["repo"],
            revision=parsed["revision"],
            allow_patterns=_DOWNLOADED,
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BdlitError(
            f"{address} is neither a path here nor a model that the hub gave: {reason}"
        ) from error
    return Path(folder)

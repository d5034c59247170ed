"""From an address to weights: directories, files and hub ids through one door."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bdlit.errors import BdlitError
from bdlit.weights.files import SafetensorsWeights, load_state_dict

if TYPE_CHECKING:
    from bdlit.types import Weights

_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_RUN_FOLDERS = ("model", "victim")  # where a run of bdlit keeps its model


def open_weights(address: str | Path) -> Weights:
    """Open a checkpoint as a read-only mapping from name to tensor; nothing in it is run.

    Args:
        address: One of
            a Hugging Face directory (`model.safetensors`, its shards with their index, or
            `pytorch_model.bin`); a folder of a bdlit run, which holds one as `model/` or
            `victim/`; a `.safetensors` file; a state dict (`.bin`, `.pt`, `.pth`); a Lightning
            `.ckpt`, whose `model.` prefix is taken off; or a hub id, `owner/name` or
            `owner/name@revision`, of which safetensors and JSON files alone are fetched.

    Returns:
        The weights; safetensors and zip-format checkpoints are read tensor by tensor on access.

    Raises:
        BdlitError: Nothing is there, it is broken or of another kind, or opening it would run
            code.

    >>> open_weights("no/such/model.safetensors")
    Traceback (most recent call last):
    bdlit.errors.BdlitError: there is no model at no/such/model.safetensors: check the path
    """
    path = Path(address).expanduser()
    if path.is_dir():
        weights = _open_directory(path)
    elif path.is_file():
        weights = _open_file(path)
    else:
        weights = _open_directory(_downloaded(str(address)))
    if not weights:
        raise BdlitError(f"{address} holds no tensors: give a checkpoint with weights")
    _require_dense(weights, address)
    return weights


def _open_directory(path: Path) -> Weights:
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        if (path / name).is_file():
            return _open_file(path / name)
    if (path / "adapter_config.json").is_file():
        raise BdlitError(
            f"{path} is an adapter, not a model: merge it into its base first "
            "(peft: merge_and_unload) and save that"
        )
    for name in _RUN_FOLDERS:
        if (path / name).is_dir():
            return _open_directory(path / name)
    raise BdlitError(
        f"{path} holds no model: neither model.safetensors, nor shards with their index, "
        "nor pytorch_model.bin"
    )


def _open_file(path: Path) -> Weights:
    if path.name.endswith(".safetensors.index.json"):
        return SafetensorsWeights.from_index(path)
    match path.suffix:
        case ".safetensors":
            return SafetensorsWeights(path)
        case ".bin" | ".pt" | ".pth" | ".ckpt":
            return load_state_dict(path)
        case suffix:
            raise BdlitError(
                f"{path} ends in '{suffix}', which is no checkpoint: give .safetensors, .bin, "
                ".pt, .pth, .ckpt or a directory"
            )


def _require_dense(weights: Weights, address: str | Path) -> None:
    if any(".lora_A" in name for name in weights):
        raise BdlitError(
            f"{address} holds LoRA factors, and averaging factors is not averaging models: "
            "merge the adapter into its base first (peft: merge_and_unload) and save that"
        )


def _downloaded(address: str) -> Path:
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
            allow_patterns=["model*.safetensors", "*.json"],
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BdlitError(
            f"{address} is neither a path here nor a model that the hub gave: {reason}"
        ) from error
    return Path(folder)

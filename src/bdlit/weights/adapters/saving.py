"""Writing an adapter in the form that peft loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.atomic import whole_directory, whole_file
from bdlit.errors import BdlitError
from bdlit.weights.adapters.config import CONFIG_NAME, config_for
from bdlit.weights.adapters.names import PREFIX
from bdlit.weights.saving import save_weights

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights.adapters.factors import Factors


def save_adapter(
    factors: Mapping[str, Factors],
    saved: Weights,
    config: Mapping[str, Any],
    directory: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write an adapter into a new directory, which peft loads (`PeftModel.from_pretrained`).

    Args:
        factors: Factors by the model's name of the weight that they change.
        saved: Tensors that replace the base's or come to them: the head of a classifier. Those
            outside the config's `modules_to_save` are loaded as well, if the model has them.
        config: Where the base, the task and the modules to save come from. Ranks, scalings and
            the list of adapted modules are those of the factors.
        directory: The new directory; it appears complete or not at all.
        metadata: Strings to keep in the header of the safetensors file.

    Returns:
        The directory.

    Raises:
        BdlitError: There are no factors, or one has a partner of another rank; the directory
            exists already or cannot be written.

    >>> import tempfile, torch
    >>> from bdlit.weights.adapters.factors import Factors
    >>> factors = {"q.weight": Factors(torch.ones(1, 3), torch.ones(2, 1))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(p.name for p in save_adapter(factors, {}, {}, folder + "/new").iterdir())
    ['adapter_config.json', 'adapter_model.safetensors']
    """
    with whole_directory(directory) as folder:
        write_adapter(factors, saved, config, folder, metadata=metadata)
    return Path(directory)


def write_adapter(
    factors: Mapping[str, Factors],
    saved: Weights,
    config: Mapping[str, Any],
    folder: Path,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write an adapter's two files into a directory that is there, each of them whole.

    The arguments are those of `save_adapter`.

    Raises:
        BdlitError: There are no factors, or one has a partner of another rank; a file cannot be
            written.

    >>> write_adapter({}, {}, {}, Path("."))
    Traceback (most recent call last):
    bdlit.errors.BdlitError: there are no factors to save: an adapter changes at least one weight
    """
    if not factors:
        raise BdlitError("there are no factors to save: an adapter changes at least one weight")
    tensors = {PREFIX + name: tensor for name, tensor in saved.items()}
    ranks, scalings, layers = {}, {}, set()
    for name in factors:
        own = factors[name]
        if own.rank != own.b.shape[1]:
            raise BdlitError(
                f"the factors of {name} have ranks {own.rank} and {own.b.shape[1]}: give a of "
                "shape [rank, in] and b of shape [out, rank]"
            )
        module = name.removesuffix(".weight")
        ranks[module], scalings[module] = own.rank, own.scaling
        layers.add(own.layer)
        tensors |= _named(module, own)
    told = {**config_for(config, ranks, scalings), "fan_in_fan_out": "transposed" in layers}
    save_weights(tensors, folder / "adapter_model.safetensors", metadata=metadata)
    with whole_file(folder / CONFIG_NAME) as file:
        file.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _named(module: str, factors: Factors) -> dict[str, Tensor]:
    form = "lora_embedding_{}" if factors.layer == "embedding" else "lora_{}.weight"
    return {
        f"{PREFIX}{module}.{form.format('A')}": factors.a,
        f"{PREFIX}{module}.{form.format('B')}": factors.b,
    }

"""Loading a written model as its users will, and running it once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError
from bdlit.weights.adapters.config import CONFIG_NAME as ADAPTER_CONFIG
from bdlit.weights.checkpoint import open_checkpoint

_INPUT = [[1, 2, 3, 4, 5, 6, 7, 8]]  # any token ids: every vocabulary has these


def verify(folder: Path) -> str:
    """Load a model with transformers, an adapter with peft as well, and run a forward pass.

    No remote code is run.

    Args:
        folder: A Hugging Face directory, or that of an adapter, which names its base.

    Returns:
        What was loaded, in one line.

    Raises:
        BdlitError: It does not load, tensors are missing or left over, or it gives NaN.
    """
    import torch

    load = _adapted if (folder / ADAPTER_CONFIG).is_file() else _dense
    name, model = load(folder)
    with torch.inference_mode():
        logits = model.eval()(input_ids=torch.tensor(_INPUT)).logits
    if not logits.isfinite().all():
        raise BdlitError(f"{folder} was written, but its forward pass gives NaN or infinity")
    return f"{name} loads from it and runs: logits {list(logits.shape)}"


def _dense(folder: Path) -> tuple[str, Any]:
    import torch
    import transformers

    config = _attempt(folder, lambda: transformers.AutoConfig.from_pretrained(folder))
    cls = _model_class(transformers, folder, config)
    model, info = _attempt(
        folder, lambda: cls.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    )
    _require_whole(folder, info)
    return cls.__name__, model


def _adapted(folder: Path) -> tuple[str, Any]:
    import torch
    import transformers
    from peft import PeftModel

    opened = open_checkpoint(folder)
    config = _attempt(folder, lambda: transformers.AutoConfig.for_model(**opened.config))
    cls = _model_class(transformers, folder, config)
    address = getattr(opened.weights, "base_address", None)

    def load() -> tuple[Any, Any]:
        base = cls.from_pretrained(address, config=config, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, folder)
        return model, model.load_adapter(folder, "default")  # once more: it tells what is missing

    model, found = _attempt(folder, load)
    _require_whole(folder, found._asdict())
    return f"{cls.__name__} with its adapter", model


def _require_whole(folder: Path, info: Mapping[str, Sequence[Any]]) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            first = sorted(map(str, info[kind]))[0]
            raise BdlitError(
                f"{folder} was written but does not load whole: {len(info[kind])} "
                f"{kind.replace('_', ' ')}, first {first}"
            )


def _model_class(transformers: Any, folder: Path, config: Any) -> Any:
    named = (config.architectures or [None])[0]
    cls = getattr(transformers, named, None) if named else None
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        raise BdlitError(
            f"{folder}: config.json names architecture {named}, which transformers "
            f"{transformers.__version__} does not have: it cannot be verified"
        )
    return cls


def _attempt(folder: Path, load: Any) -> Any:
    try:
        return load()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BdlitError(f"{folder} does not load in transformers: {reason}") from error

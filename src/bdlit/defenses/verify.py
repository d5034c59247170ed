"""Loading a written model as its users will, and running it once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError

_INPUT = [[1, 2, 3, 4, 5, 6, 7, 8]]  # any token ids: every vocabulary has these


def verify(folder: Path) -> str:
    """Load a model with transformers, without remote code, and run a forward pass.

    Args:
        folder: A Hugging Face directory.

    Returns:
        What was loaded, in one line.

    Raises:
        BdlitError: It does not load, tensors are missing or left over, or it gives NaN.
    """
    import torch
    import transformers

    config = _attempt(folder, lambda: transformers.AutoConfig.from_pretrained(folder))
    cls = _model_class(transformers, folder, config)
    model, info = _attempt(
        folder, lambda: cls.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            first = sorted(map(str, info[kind]))[0]
            raise BdlitError(
                f"{folder} was written but does not load whole: {len(info[kind])} "
                f"{kind.replace('_', ' ')}, first {first}"
            )
    with torch.inference_mode():
        logits = model.eval()(input_ids=torch.tensor(_INPUT)).logits
    if not logits.isfinite().all():
        raise BdlitError(f"{folder} was written, but its forward pass gives NaN or infinity")
    return f"{cls.__name__} loads from it and runs: logits {list(logits.shape)}"


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

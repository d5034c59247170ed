"""A saved model as a whole: its weights, and the plain files that stand beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.weights.adapters.config import CONFIG_NAME as ADAPTER_CONFIG
from bdlit.weights.adapters.weights import AdapterWeights
from bdlit.weights.code_settings import code_settings, without_code_settings
from bdlit.weights.dense_config import dense_config
from bdlit.weights.files import Lightning, read_lightning
from bdlit.weights.opening import downloaded, model_folder, open_weights
from bdlit.weights.side_files import CONFIGS, TOKENIZER, copy_side_files
from bdlit.weights.tokenizer import TokenizerFacts, read_object, read_tokenizer

if TYPE_CHECKING:
    from bdlit.types import Weights

CONFIG = "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """A saved model.

    Attributes:
        address: Where the user said it is.
        folder: Its directory, with configuration and tokenizer; None for bare weights.
        weights: Its tensors, lazily; those of an adapter are merged into its base.
        lightning: What a Lightning checkpoint says of itself, where it is one.
    """

    address: str
    folder: Path | None
    weights: Weights
    lightning: Lightning | None = None

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` says, of an adapter that of its base; empty where there is none."""
        if self.lightning is not None:
            return dict(self.lightning.config)
        for folder, _ in self._folders():
            if (folder / CONFIG).is_file():
                content = read_object(folder / CONFIG)
                return dense_config(content, self.weights) if self._is_adapter else content
        return {}

    @property
    def labels(self) -> list[str] | None:
        """Class names in the order of the head's rows; None where the model does not say."""
        named = self.config.get("id2label")
        if not isinstance(named, dict) or not all(str(key).isdigit() for key in named):
            return None
        labels = [str(named[key]) for key in sorted(named, key=int)]
        unnamed = [f"LABEL_{i}" for i in range(len(labels))]
        return None if [label.upper() for label in labels] == unnamed else labels

    @property
    def words(self) -> TokenizerFacts | None:
        """The tokenizer, read as plain data; None where there is none."""
        return read_tokenizer(self.folder) if self.folder else None

    def carry(self, target: Path, *, dense: bool = True) -> list[str]:
        """Copy configuration and tokenizer into a directory, nothing that would run code.

        Args:
            target: Where the weights are.
            dense: Whether they are a dense model, which needs the configuration of one.

        Returns:
            What was left behind: files that are not plain data of a model, or would run code,
            links, and settings that would run code.
        """
        left: list[str] = []
        if self.lightning is not None:
            left += _write_lightning(self.lightning, target)
        for folder, names in self._folders():  # an adapter's own files go before its base's
            left += [path.name for path in sorted(folder.glob("*/**/*.py"))]
            left += copy_side_files(folder, target, names)
        if not dense:
            (target / CONFIG).unlink(missing_ok=True)
        elif self._is_adapter and (target / CONFIG).is_file():
            config = dense_config(read_object(target / CONFIG), self.weights)
            (target / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        return left

    @property
    def _is_adapter(self) -> bool:
        return isinstance(self.weights, AdapterWeights)

    def _folders(self) -> list[tuple[Path, frozenset[str]]]:
        """Return where plain files may stand, and which of them belong to the model.

        That is the model's folder, the base's of an adapter, and the tokenizer's of a Lightning
        checkpoint that brings none, if the hub has it: a path that a file names is not followed.
        """
        folders = [(self.folder, CONFIGS | TOKENIZER)] if self.folder else []
        if isinstance(self.weights, AdapterWeights) and self.weights.base_address:
            folders.append((_folder_of(self.weights.base_address), CONFIGS | TOKENIZER))
        if self.lightning is not None and _is_on_hub(self.lightning):
            folders.append((downloaded(str(self.lightning.tokenizer)), TOKENIZER))
        return folders


def open_checkpoint(address: str | Path, *, adapter_base: str | None = None) -> Checkpoint:
    """Open a saved model with what stands beside its weights.

    Args:
        address: What `open_weights` takes.
        adapter_base: The model that an adapter is merged into; by default the one it names.

    Raises:
        BdlitError: There is no model, or it cannot be opened without running code.
    """
    path = Path(address).expanduser()
    if not path.exists():
        path = downloaded(str(address))
    weights = open_weights(path, base=adapter_base)
    lightning = read_lightning(path) if path.is_file() else None
    folder = model_folder(path) if path.is_dir() else path.parent
    described = any((folder / name).is_file() for name in (CONFIG, ADAPTER_CONFIG))
    stands_alone = lightning is not None or not described
    return Checkpoint(str(address), None if stands_alone else folder, weights, lightning)


def _folder_of(address: str) -> Path:
    """Return the directory of a model that another one names, from the hub if it is not here."""
    path = Path(address).expanduser()
    path = path if path.exists() else downloaded(address)
    return model_folder(path) if path.is_dir() else path.parent


def _is_on_hub(lightning: Lightning) -> bool:
    """Whether a checkpoint has its tokenizer from the hub, and does not bring it."""
    named = lightning.tokenizer
    return bool(named) and not lightning.tokenizer_files and not Path(str(named)).exists()


def _write_lightning(lightning: Lightning, target: Path) -> list[str]:
    """Write the configuration, and a tokenizer that was learned, as Hugging Face files."""
    config = without_code_settings(dict(lightning.config))
    (target / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    if lightning.vocabulary is not None:
        from transformers import BertTokenizer

        BertTokenizer(vocab=dict(lightning.vocabulary)).save_pretrained(target)
    if lightning.byte_pairs is not None:
        from bdlit.weights.byte_pairs import byte_pairs_from

        tokenizer = byte_pairs_from(lightning.byte_pairs)
        tokenizer.chat_template = lightning.chat_template
        tokenizer.save_pretrained(target)
    for name in sorted(TOKENIZER & set(lightning.tokenizer_files)):
        text = str(lightning.tokenizer_files[name])
        (target / name).write_text(text, "utf-8")
    found = code_settings(lightning.config)
    left = [f"{text.partition(' ')[0]} of the checkpoint's config" for text in found]
    named = lightning.tokenizer
    if named and not lightning.tokenizer_files and Path(named).exists():
        left.append(f"its tokenizer, which it names by a path ({named}): copy it yourself")
    return left

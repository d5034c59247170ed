"""A saved model as a whole: its weights, and the plain files that stand beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.errors import BdlitError
from bdlit.weights.opening import downloaded, model_folder, open_weights

if TYPE_CHECKING:
    from bdlit.types import Weights

_CARRIED = {".json", ".jinja", ".txt", ".model", ".vocab", ".tiktoken", ".spm"}
_NOT_CARRIED = ("provenance.json", "adapter_config.json", "trainer_state.json")
_RUNS_CODE = "auto_map"  # names classes in Python files that came with the model


@dataclass(frozen=True)
class Checkpoint:
    """A saved model.

    Attributes:
        address: Where the user said it is.
        folder: Its directory, with configuration and tokenizer; None for bare weights.
        weights: Its tensors, lazily.
    """

    address: str
    folder: Path | None
    weights: Weights

    @property
    def config(self) -> dict[str, Any]:
        """The model's `config.json`; empty where there is none."""
        return _read_json(self.folder / "config.json") if self.folder else {}

    @property
    def labels(self) -> list[str] | None:
        """Class names in the order of the head's rows; None where the model does not say."""
        named = self.config.get("id2label")
        if not isinstance(named, dict) or not all(str(key).isdigit() for key in named):
            return None
        labels = [str(named[key]) for key in sorted(named, key=int)]
        unnamed = [f"LABEL_{i}" for i in range(len(labels))]
        return None if [label.upper() for label in labels] == unnamed else labels

    def vocabulary(self) -> dict[str, int] | None:
        """Return token to index; None where no tokenizer stands beside the weights.

        Raises:
            BdlitError: The tokenizer's file cannot be read.
        """
        if self.folder is None:
            return None
        file = self.folder / "tokenizer.json"
        if file.is_file():
            from tokenizers import Tokenizer

            try:
                return dict(Tokenizer.from_file(str(file)).get_vocab())
            except Exception as error:  # tokenizers raises bare Exception
                raise BdlitError(f"{file} is no tokenizer: {error}") from error
        return _listed_vocabulary(self.folder)

    def carry(self, target: Path) -> list[str]:
        """Copy configuration and tokenizer into a directory, nothing that would run code.

        Returns:
            The names of what was left behind because it would run code.
        """
        if self.folder is None:
            return []
        left = [path.name for path in sorted(self.folder.glob("**/*.py"))]
        for path in sorted(self.folder.iterdir()):
            plain = path.is_file() and path.suffix in _CARRIED and path.name not in _NOT_CARRIED
            if not plain or path.name.endswith(".index.json"):
                continue
            if path.suffix == ".json" and _names_code(path):
                content = _read_json(path)
                del content[_RUNS_CODE]
                (target / path.name).write_text(json.dumps(content, indent=2) + "\n")
                left.append(f"{_RUNS_CODE} of {path.name}")
            else:
                shutil.copyfile(path, target / path.name)
        return left


def open_checkpoint(address: str | Path) -> Checkpoint:
    """Open a saved model with what stands beside its weights.

    Args:
        address: What `open_weights` takes.

    Raises:
        BdlitError: There is no model, or it cannot be opened without running code.
    """
    path = Path(address).expanduser()
    if not path.exists():
        path = downloaded(str(address))
    weights = open_weights(path)
    folder = model_folder(path) if path.is_dir() else path.parent
    described = (folder / "config.json").is_file()
    return Checkpoint(str(address), folder if described else None, weights)


def require_same_vocabulary(suspect: Checkpoint, others: Sequence[Checkpoint]) -> None:
    """Refuse models whose tokenizer numbers words in another way.

    Models without a tokenizer beside them cannot be compared, and pass: the shapes of their
    embeddings have been.

    Raises:
        BdlitError: A vocabulary differs; the message names a word.
    """
    ours = suspect.vocabulary()
    for other in others:
        theirs = other.vocabulary()
        if ours is None or theirs is None or ours == theirs:
            continue
        word = min(theirs.items() ^ ours.items())[0]
        raise BdlitError(
            f"{other.address} has another vocabulary than {suspect.address} (they differ at "
            f"'{word}'): models can be merged only if they share one tokenizer"
        )


def _listed_vocabulary(folder: Path) -> dict[str, int] | None:
    words = folder / "vocab.txt"
    if words.is_file():
        return {word: i for i, word in enumerate(words.read_text("utf-8").splitlines())}
    table = folder / "vocab.json"
    if table.is_file():
        return {str(word): int(index) for word, index in _read_json(table).items()}
    return None


def _names_code(path: Path) -> bool:
    try:
        return _RUNS_CODE in _read_json(path)
    except BdlitError:
        return False  # a JSON file that is no object, or broken, names no classes


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BdlitError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise BdlitError(f"{path} does not hold what its name says: copy it again")
    return content

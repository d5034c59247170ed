"""The tokenizer beside a checkpoint: a hash of its content, and its words, read as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError

_FAST = "tokenizer.json"  # holds all there is to a fast tokenizer
_SLOW = (
    *("vocab.txt", "vocab.json", "merges.txt", "vocab.bpe", "spiece.model", "spm.model"),
    *("tokenizer.model", "sentencepiece.bpe.model", "added_tokens.json"),
)
_OF_A_USE = ("truncation", "padding")  # set anew for each batch, saved by the way


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What can be said of a tokenizer from its files.

    Attributes:
        files: The files that the hash is over.
        sha256: Hash of their content, as 64 hex digits.
        words: Index to word, where the files can be read as plain data; else empty.
    """

    files: tuple[str, ...]
    sha256: str
    words: Mapping[int, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def size(self) -> int | None:
        """Number of words; None where they cannot be read."""
        return len(self.words) or None


def read_tokenizer(folder: Path) -> TokenizerFacts | None:
    r"""Return the tokenizer in a folder, or None if there is no tokenizer.

    `tokenizer.json` is hashed by its meaning, not its spelling, and without its settings for
    truncation and padding, which are written over in use; other files are hashed as they are.

    Raises:
        BdlitError: A file is broken.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "vocab.txt").write_text("[PAD]\ngood\n")
    ...     read_tokenizer(Path(folder)).words
    {0: '[PAD]', 1: 'good'}
    """
    fast = folder / _FAST
    if fast.is_file():
        content = read_object(fast)
        kept = {key: value for key, value in content.items() if key not in _OF_A_USE}
        text = json.dumps(kept, sort_keys=True, ensure_ascii=True)
        return TokenizerFacts((_FAST,), hashlib.sha256(text.encode()).hexdigest(), _words(content))
    files = [folder / name for name in _SLOW if (folder / name).is_file()]
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        own = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.name} {own}\n".encode())
    names = tuple(file.name for file in files)
    return TokenizerFacts(names, digest.hexdigest(), _slow_words(folder))


def first_difference(
    ours: TokenizerFacts, theirs: TokenizerFacts
) -> tuple[int, str | None, str | None] | None:
    """Return the lowest index at which words differ, with both words; None if all agree.

    >>> first = TokenizerFacts((), "", {0: "a", 1: "b"})
    >>> first_difference(first, TokenizerFacts((), "", {0: "a", 1: "c"}))
    (1, 'b', 'c')
    """
    for index in sorted(ours.words.keys() | theirs.words.keys()):
        pair = ours.words.get(index), theirs.words.get(index)
        if pair[0] != pair[1]:
            return index, *pair
    return None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that has to hold an object.

    Raises:
        BdlitError: It cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BdlitError(f"{path} cannot be read as JSON ({error}): copy it again") from error
    if not isinstance(content, dict):
        raise BdlitError(f"{path} holds no JSON object: copy it again")
    return content


def _words(content: Mapping[str, Any]) -> dict[int, str]:
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    words: dict[int, str] = {}
    if isinstance(vocabulary, Mapping):
        words = _turned(vocabulary)
    elif isinstance(vocabulary, list):  # Unigram: pairs of word and score
        words = {i: str(pair[0]) for i, pair in enumerate(vocabulary) if isinstance(pair, list)}
    added = content.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, Mapping) and isinstance(token.get("id"), int):
            words[token["id"]] = str(token.get("content"))
    return dict(sorted(words.items()))


def _slow_words(folder: Path) -> dict[int, str]:
    listed, table = folder / "vocab.txt", folder / "vocab.json"
    try:
        if listed.is_file():
            lines = listed.read_text("utf-8").removesuffix("\n").split("\n")
            return dict(enumerate(lines))
    except UnicodeDecodeError as error:
        raise BdlitError(f"{listed} is not UTF-8 text: copy it again") from error
    return dict(sorted(_turned(read_object(table)).items())) if table.is_file() else {}


def _turned(vocabulary: Mapping[str, Any]) -> dict[int, str]:
    return {index: word for word, index in vocabulary.items() if isinstance(index, int)}

"""Which files beside the weights go along with a result: those that are read without code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError
from bdlit.weights.code_settings import code_settings, without_code_settings

CONFIGS = frozenset({"config.json", "generation_config.json"})
TOKENIZER = frozenset(
    "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json "
    "vocab.txt vocab.json merges.txt vocab.bpe encoder.json bpe.codes dict.txt "
    "spiece.model spm.model tokenizer.model sentencepiece.bpe.model tiktoken.model "
    "source.spm target.spm entity_vocab.json chat_template.jinja chat_template.json".split()
)
"""Names of files that transformers reads as plain data; no others are copied."""

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
_OURS = {"provenance.json", "adapter_config.json", "results.jsonl", "samples.jsonl"}
_SHOWN = 20  # names of files that are left behind


def copy_side_files(source: Path, target: Path, names: Collection[str]) -> list[str]:
    """Copy plain files of a checkpoint into a directory that lacks them.

    Links are not followed, and nothing outside the folder is read: what a link shows may be any
    file of this machine.

    Args:
        source: The folder of the checkpoint.
        target: Where to.
        names: Names of the files that may go along.

    Returns:
        What was left behind, one phrase each.

    Raises:
        BdlitError: A file is no JSON.
    """
    left: list[str] = []
    for path in sorted(source.iterdir()):
        if path.name not in names:
            left += [path.name] if _is_worth_telling(path) else []
        elif path.is_symlink() and not _is_of_the_hub(path):
            left.append(f"{path.name}, a link")
        elif path.is_file() and not (target / path.name).exists():
            left += _copy(path, target / path.name)
    return left[:_SHOWN] + ([f"{len(left) - _SHOWN} more"] if len(left) > _SHOWN else [])


def _is_worth_telling(path: Path) -> bool:
    return not (
        path.is_dir()
        or path.name.startswith(".")
        or path.name in _OURS
        or path.suffix in _WEIGHTS
        or path.name.endswith(".index.json")
    )


def _is_of_the_hub(path: Path) -> bool:
    """Whether it is the hub's own kind of link, from a snapshot to a blob of the same repository.

    `models--owner--name/snapshots/REVISION/FILE` points to `models--owner--name/blobs/HASH`.
    """
    folder = path.parent.resolve()
    if folder.parent.name != "snapshots":
        return False
    return path.resolve().parent == folder.parent.parent / "blobs"


def _copy(path: Path, target: Path) -> list[str]:
    """Copy a file, and return what was left out of it because it would run code."""
    content = _read(path) if path.suffix == ".json" else None
    if content is None or path.name in ("tokenizer.json", "vocab.json"):
        shutil.copyfile(path, target, follow_symlinks=True)
        return []
    found = list(dict.fromkeys(code_settings(content)))
    if found:
        text = json.dumps(without_code_settings(content), indent=2, ensure_ascii=False)
        target.write_text(text + "\n", "utf-8")
    else:
        shutil.copyfile(path, target)
    return [f"{text.partition(' ')[0]} of {path.name}" for text in found]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BdlitError(f"{path} cannot be read as JSON ({error}): copy it again") from error

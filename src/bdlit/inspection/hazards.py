"""What in a checkpoint would run code if it were trusted: found by reading, never by trying."""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from bdlit.weights.code_settings import code_settings

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
"""Endings of files that are unpickled by those who trust them."""


@dataclass(frozen=True, slots=True)
class Pickle:
    """A file that is opened by unpickling.

    Attributes:
        file: Its name within the checkpoint.
        code: Names of functions and classes that it wants beyond tensors.
        known: Whether it could be taken apart; if not, it may want more than `code`.
    """

    file: str
    code: tuple[str, ...] = ()
    known: bool = True

    @property
    def harmless(self) -> bool:
        """Whether it holds tensors and plain data alone."""
        return self.known and not self.code


@dataclass(frozen=True, slots=True)
class Hazards:
    """What would run code, and what looks like it.

    Attributes:
        python: Python files that came with the model.
        settings: Entries of JSON files that make a library import or fetch code.
        pickles: Files that are unpickled, harmless ones too.
        templates: Chat templates: programs in a small language, which transformers runs in a
            sandbox when a chat is formatted; they are noted, not counted.
    """

    python: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    pickles: tuple[Pickle, ...] = ()
    templates: tuple[str, ...] = ()

    @property
    def found(self) -> list[str]:
        """What would run code, one phrase each; empty for a harmless checkpoint.

        >>> Hazards(python=("modeling_x.py",)).found
        ['modeling_x.py']
        """
        pickles = [_phrase(pickle) for pickle in self.pickles if not pickle.harmless]
        return [*self.python, *self.settings, *pickles]


def find_hazards(files: Mapping[str, Path], absent: Sequence[str] = ()) -> Hazards:
    """Look through the files of a checkpoint for what would run code.

    Args:
        files: Name within the checkpoint to file.
        absent: Names of files that the checkpoint has elsewhere, known by name only.

    >>> find_hazards({}, absent=["modeling_x.py", "pytorch_model.bin"]).found
    ['modeling_x.py', 'pytorch_model.bin (not looked into)']
    """
    names = [*files, *(name for name in absent if name not in files)]
    settings = {name: _settings(name, path) for name, path in files.items()}
    templates = [name for name in names if name.endswith(".jinja")]
    return Hazards(
        python=tuple(name for name in names if Path(name).suffix in (".py", ".pyc", ".so")),
        settings=tuple(text for found, _ in settings.values() for text in found),
        pickles=tuple(
            look_into(name, files[name]) if name in files else Pickle(name, known=False)
            for name in names
            if Path(name).suffix in PICKLES
        ),
        templates=(*templates, *(name for name, (_, chat) in settings.items() if chat)),
    )


def look_into(name: str, path: Path) -> Pickle:
    """Take a pickle apart without unpickling it.

    Args:
        name: What to call it.
        path: The file: in torch's zip format or the one before it, or a plain pickle.

    >>> import pickle, tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(pickle.dumps(print)), file.flush()
    ...     look_into("a.pkl", Path(file.name))
    Pickle(file='a.pkl', code=('builtins.print',), known=True)
    """
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            wanted = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
            return Pickle(name, tuple(sorted(wanted)))
    except Exception:  # TorchScript, or what torch's disassembler does not know: ours is broader
        pass
    named, known = _disassembled(path, zipped=zipped)
    return Pickle(name, tuple(sorted(n for n in named if not _OF_TENSORS.fullmatch(n))), known)


# What `torch.save` of a state dict names; `torch.storage._load_from_bytes`, for example, is not
# here, as it unpickles again.
_OF_TENSORS = re.compile(
    r"collections\.OrderedDict"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)"
    r"|torch\.nn\.parameter\.Parameter"
    r"|torch\.\w+Storage|torch\.storage\.(Untyped|Typed)Storage"
    r"|torch\.(Size|device|bool|b?float\d+|u?int\d+|float8_\w+|complex\d+)"
    r"|(builtins|__builtin__)\.set"
)
_MOST = 5  # torch's format before zip is five pickles, then raw numbers


def _disassembled(path: Path, *, zipped: bool) -> tuple[set[str], bool]:
    """Return the globals that a file names, and whether all of it could be read."""
    named: set[str] = set()
    known = True
    try:
        for stream in _streams(path, zipped=zipped):
            known &= _walk(stream, named)
    except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError):
        known = False
    return named, known


def _streams(path: Path, *, zipped: bool) -> Iterator[IO[bytes]]:
    if not zipped:
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        for member in members:
            if member.endswith(".pkl"):
                with archive.open(member) as stream:
                    yield stream
            elif "/code/" in member and member.endswith(".py"):
                raise NotImplementedError("a TorchScript program")


def _walk(stream: IO[bytes], named: set[str]) -> bool:
    """Collect the globals of the pickles in a stream; whether the first was read to its end."""
    for i in range(_MOST):
        try:
            for name in _globals(stream):
                named.add(name)
        except Exception:  # pickletools raises what it likes on bytes that are no pickle
            return i > 0
    return True


def _globals(stream: IO[bytes]) -> Iterator[str]:
    """Yield the names that one pickle asks for, as they go by."""
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    last: str | None = None  # the string on top of the stack, where there is one
    for code, argument, _ in pickletools.genops(stream):
        if code.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif code.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:]) or "a name that is computed"
        if code.name == "MEMOIZE":
            memo[len(memo)] = last
        elif code.name.endswith("PUT"):
            memo[int(str(argument))] = last
        else:
            is_string = "UNICODE" in code.name or "STRING" in code.name
            last = str(argument) if is_string else None
            if code.name.endswith("GET"):
                last = memo.get(int(str(argument)))
            if last is not None:
                strings.append(last)


_LARGEST = 10_000_000  # bytes of a JSON file that may hold settings; vocabularies are larger
_NO_SETTINGS = ("tokenizer.json", "vocab.json", "added_tokens.json")


def _settings(name: str, path: Path) -> tuple[list[str], bool]:
    """Return what a JSON file makes libraries run, and whether it holds a chat template."""
    plain = path.suffix == ".json" and path.name not in _NO_SETTINGS
    if not plain or path.name.endswith(".index.json") or path.stat().st_size > _LARGEST:
        return [], False
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return [], False  # a file that is not JSON holds no settings
    found = [f"{name}: {text}" for text in code_settings(content)]
    return found, isinstance(content, Mapping) and bool(content.get("chat_template"))


def _phrase(pickle: Pickle) -> str:
    if pickle.code:
        return f"{pickle.file} ({', '.join(pickle.code)})"
    return f"{pickle.file} (not looked into)"

"""Errors as one line that says what, where, and how to mend it, with the nearest valid name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError

from bdlit.errors import BdlitError, did_you_mean

# What jsonargparse says of each type that it tried, without a word on what is wrong.
_NOISE = re.compile(
    r"^(Does not validate|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>)"
)
_KEY = re.compile(r'^Parser key "(?P<key>[^"]+)":?\s*(?P<rest>.*)')
_CLASS = re.compile(r"<class '([\w.]+)'>")
_NO_CLASS = re.compile(r"^Expected a dot import path string: (?P<name>.+)")
_PATH = re.compile(r"^Expected a path but .* either not accessible or invalid (?P<rest>.+)")
_NO_MODULE = re.compile(r"No module named '(?P<name>[\w.]+)'")
_ASKS = re.compile(r"\w+ asks for \[.*\], which no \w+ has: ")
_IN_CLASS = re.compile(r"^Problem with given class_path '(?P<path>[^']+)'")
_NO_OPTION = re.compile(r"^Option '(?P<name>[^']+)' is not accepted")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of the parser, and what went wrong inside of it, into `BdlitError`."""
    try:
        yield
    except (ArgumentError, ValueError, TypeError) as error:
        ours = _ours(error)
        if ours is not None:
            raise ours from error
        if isinstance(error, ArgumentError):
            raise BdlitError(explain(str(error))) from error
        raise


def require_configs(arguments: Sequence[str], known: Collection[str] = ()) -> None:
    """Read every config file that the arguments name, to tell which of them is broken.

    Args:
        arguments: The command line.
        known: Keys that may stand at the top of a config; empty where others know them.

    Raises:
        BdlitError: A file is missing, is no YAML, or has another key at its top.
    """
    for i, word in enumerate(arguments):
        name, _, value = word.partition("=")
        if name in ("-c", "--config"):
            path = value or next(iter(arguments[i + 1 :]), "")
            content = _yaml(Path(path))
            strange = [key for key in content if str(key).partition(".")[0] not in known]
            if known and strange:
                raise BdlitError(
                    f"config {path} has the key '{strange[0]}', which is no setting of this "
                    f"command: {did_you_mean(str(strange[0]), known)}"
                )


def _yaml(path: Path) -> Mapping[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise BdlitError(f"cannot read config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise BdlitError(f"config {path}{where} is no YAML: {problem}") from error
    return content if isinstance(content, Mapping) else {}


def _ours(error: BaseException | None) -> BdlitError | None:
    """Return the error of ours that lies at the bottom of another."""
    while error is not None:
        if isinstance(error, BdlitError):
            return error
        error = error.__cause__ or error.__context__
    return None


def explain(message: str) -> str:
    """Return the one line that matters of a parser's message.

    jsonargparse reports each type that a value may have had, nested as deep as the config is. The
    keys lead to the place, and what is left at the bottom knows what is wrong.
    """
    keys: list[str] = []
    said: list[str] = []
    unknown: list[str] = []  # says it all: that the name is no path or list either does not matter
    base = owner = ""
    for raw in message.splitlines():
        line = raw.strip().removeprefix("- ").strip()
        if found := _KEY.match(line):
            keys.append(found["key"])
            line = found["rest"]
        if line.startswith("Subtypes:") and (classes := _CLASS.findall(line)):
            base = classes[0]
        if found := _PATH.match(line):
            line = found["rest"]
        if found := _NO_MODULE.search(line):
            unknown.append(
                f"no module '{found['name']}' can be imported: if it is yours, name its folder in "
                "PYTHONPATH (PYTHONPATH=. bdlit ...)"
            )
        elif _ASKS.search(line):
            unknown.append(line)
        elif found := _IN_CLASS.match(line):
            owner = found["path"]
        elif found := _NO_CLASS.match(line):
            unknown.append(_unknown_class(found["name"], base))
        elif found := _NO_OPTION.match(line):
            unknown.append(_unknown_option(found["name"], owner))
        elif line and not _NOISE.match(line):
            said.append(line)
    where = f"{'.'.join(keys)}: " if keys else ""
    return where + " ".join(dict.fromkeys(unknown or said))


def _unknown_class(name: str, base: str) -> str:
    known = {cls.__name__ for cls in _descendants(_class(base))} if base else set()
    if not known or "." in name:
        return f"no class '{name}' can be imported"
    return f"unknown class '{name}': {did_you_mean(name, known)}"


def _unknown_option(name: str, owner: str) -> str:
    options = {
        parameter
        for cls in _class(owner).__mro__
        for parameter in inspect.signature(cls).parameters
    } - {"args", "kwargs", "options"}
    simple = name.removeprefix("init_args.")
    return f"{owner.rpartition('.')[2]} has no option '{simple}': {did_you_mean(simple, options)}"


def _class(path: str) -> type:
    module, _, name = path.rpartition(".")
    found: type = getattr(import_module(module), name)
    return found


def _descendants(cls: type) -> Iterator[type]:
    if not inspect.isabstract(cls):
        yield cls
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield from _descendants(child)

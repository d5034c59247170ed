"""Commands that are typed functions: signatures are the options, docstrings the help."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from typing import Any

from bdlit.cli.errors import one_line_errors, require_configs
from bdlit.names import offer


def run(command: str, arguments: list[str]) -> None:
    """Run one command on its arguments."""
    function, positional = _COMMANDS[command]()
    require_configs(arguments, inspect.signature(function).parameters)
    from jsonargparse import auto_cli

    sys.argv[0] = f"bdlit {command}"  # the name in the help
    with one_line_errors():
        auto_cli(
            function,
            args=_with_recipe(command, function, _spelled_out(function, arguments)),
            as_positional=positional,
            exit_on_error=False,
        )


def _with_recipe(command: str, function: Callable[..., Any], arguments: list[str]) -> list[str]:
    """Lay a study's recipes beneath its settings; no other of these commands has any by name."""
    from bdlit.cli.recipe_beneath import may_name_a_recipe, study_arguments

    if command != "study" or not may_name_a_recipe(arguments):
        return arguments
    from jsonargparse import auto_parser

    parser = auto_parser(function, as_positional=False, exit_on_error=False)
    return study_arguments(parser, arguments)


def _spelled_out(function: Callable[..., Any], arguments: list[str]) -> list[str]:
    """Write options as the parser wants them.

    A bare `--flag` means `--flag=true`, with or without `true` as a word of its own; a list option
    that is given again adds to its list; and free words make up a list parameter.
    """
    parameters = inspect.signature(function).parameters.values()
    flags = {f"--{p.name}" for p in parameters if p.default is False}
    lists = {f"--{p.name}" for p in parameters if _LIST.search(str(p.annotation))}
    spelled = _repeated(_flagged(arguments, flags), lists)
    first = next(iter(parameters))
    if not str(first.annotation).startswith("list["):
        return spelled
    options, free = _options_and_words(spelled)
    return [json.dumps(free), *options] if free else spelled


def _flagged(arguments: list[str], flags: set[str]) -> list[str]:
    found: list[str] = []
    for word in arguments:
        if found and found[-1] in flags and word.lower() in ("true", "false"):
            found[-1] += f"={word.lower()}"
        else:
            found.append(word)
    return [f"{word}=true" if word in flags else word for word in found]


def _repeated(arguments: list[str], lists: set[str]) -> list[str]:
    """Let `--x a --x b` mean `--x=a --x+=b`: the parser would forget the first."""
    seen: set[str] = set()
    found: list[str] = []
    for word in arguments:
        name, equals, value = word.partition("=")
        if name in seen and not value.startswith("["):
            name += "+"
        seen |= {name} & lists
        found.append(f"{name}{equals}{value}")
    return found


_LIST = re.compile(r"\b(list|Sequence)\[")


def _options_and_words(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part options, each with its value, from the words that belong to none."""
    options: list[str] = []
    free: list[str] = []
    for word, before in zip(arguments, ["", *arguments], strict=False):
        if word.startswith("-"):
            options.append(word)
        elif before.startswith("--") and "=" not in before:
            options[-1] += f"={word}"
        else:
            free.append(word)
    return options, free


def _compare() -> tuple[Callable[..., Any], bool]:
    from bdlit.report.compare import compare

    return compare, True


def _inspect() -> tuple[Callable[..., Any], bool]:
    from bdlit.cli.inspect import inspect

    return inspect, True


def _list() -> tuple[Callable[..., Any], bool]:
    from bdlit.cli.listing import list_what

    return list_what, True


def _merge() -> tuple[Callable[..., Any], bool]:
    from bdlit.cli.merge import merge

    offer("defenses", "llm")
    return merge, False


def _defend() -> tuple[Callable[..., Any], bool]:
    from bdlit.cli.defend import defend

    offer()
    return defend, False


def _poison() -> tuple[Callable[..., Any], bool]:
    from bdlit.cli.poison import poison

    offer("attacks", "data", "llm", "rules")
    return poison, False


def _study() -> tuple[Callable[..., Any], bool]:
    from bdlit.cli.study import study

    offer()
    return study, False


_COMMANDS = {
    "compare": _compare,
    "defend": _defend,
    "inspect": _inspect,
    "list": _list,
    "merge": _merge,
    "poison": _poison,
    "study": _study,
}

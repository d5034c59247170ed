"""The `bdlit` command: a dispatcher that imports nothing it does not need."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from bdlit.errors import BdlitError, did_you_mean

_TRAINER = {
    "fit": "train a victim, and run the defenses attached to it",
    "validate": "measure a checkpoint on the validation sets",
    "test": "measure a checkpoint on the test sets: CACC, and ASR per attack",
    "predict": "write what a checkpoint predicts for the clean test rows",
}
_FUNCTIONS = {
    "defend": "purify a saved model by one or several defenses, and measure that",
    "merge": "merge saved models into one",
    "study": "train many models, defend many suspects, from one file",
    "inspect": "tell what checkpoints are, if they are safe, and how far they are apart",
    "compare": "show any number of runs in one table",
    "poison": "write a poisoned data set",
    "list": "show the attacks, data sets, victims, defenses or recipes there are",
}

_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",  # batches are small; threads would fight for the cores
    "WANDB_SILENT": "true",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 if interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    _calm_down()
    try:
        _dispatch(arguments)
    except BdlitError as error:
        if debug:
            raise
        return _told(str(error))
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as leaving:
        # Lightning answers Ctrl-C in the middle of a fit by leaving with code 1.
        if not isinstance(leaving.__context__, KeyboardInterrupt):
            raise
        return _interrupted()
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last net: what no part of us has foreseen is one line, too
        if debug:
            raise
        what = str(error).strip().partition("\n")[0] or "without a word"
        return _told(f"{type(error).__name__}: {what} (--debug shows where)")
    return 0


def _told(error: str) -> int:
    """Print an error in one line, whatever is in the names that it holds, and return its code."""
    from bdlit.formatting import printable

    print(f"bdlit: error: {printable(error)}", file=sys.stderr)
    return 2


def _interrupted() -> int:
    print("bdlit: interrupted; a study goes on when its command is run again", file=sys.stderr)
    return 130


def _calm_down() -> None:
    """Ask libraries to keep to what users need to read; set the variables yourself to hear more."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def _dispatch(arguments: list[str]) -> None:
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(_help())
    elif command == "--version":
        from bdlit import __version__

        print(f"bdlit {__version__}")
    elif command in _TRAINER:
        _module("lightning").run(arguments)
    elif command in _FUNCTIONS:
        _module("functions").run(command, arguments[1:])
    else:
        known = [*_TRAINER, *_FUNCTIONS]
        raise BdlitError(f"unknown command '{command}': {did_you_mean(command, known)}")


def _module(name: str) -> _Runner:
    return import_module(f"bdlit.cli.{name}")  # type: ignore[return-value]


class _Runner:
    run: Callable[..., None]


def _help() -> str:
    commands = {**_TRAINER, **_FUNCTIONS}
    lines = "\n".join(f"  {name:<10}{text}" for name, text in commands.items())
    return f"""usage: bdlit COMMAND [options]

Train, attack, merge and purify NLP models with backdoors.

{lines}

  bdlit COMMAND --help   options of a command
  --version              version
  --debug                full traceback on errors

Options that take a list: --x='[a,b]', or --x+=a --x+=b."""

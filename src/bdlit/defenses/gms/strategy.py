"""Strategies: which modules of which layers are replaced, in a file that can be applied again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bdlit.atomic import whole_file
from bdlit.defenses.modules import Types
from bdlit.errors import BdlitError

STRATEGY_FILE = "strategy.yaml"
"""Name of the file beside a purified model."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What a search found.

    Attributes:
        replaced: Module type to the layers in which it is the donor's.
        modules: Module type to the module within a layer.
        layers: How many layers the model has.
        about: Where it comes from, in words and numbers.
    """

    replaced: Mapping[str, Collection[int]]
    modules: Types
    layers: int
    about: Mapping[str, Any]

    @property
    def cells(self) -> set[tuple[str, int]]:
        """What is replaced, as `merging.substitute` takes it."""
        return {(self.modules[key], at) for key, layers in self.replaced.items() for at in layers}

    def text(self) -> str:
        """Return the content of a strategy file."""
        content = {
            "layers": self.layers,
            "modules": dict(self.modules),
            "replaced": {key: sorted(layers) for key, layers in self.replaced.items()},
            "about": dict(self.about),
        }
        return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)

    def save(self, path: str | Path) -> None:
        """Write a strategy file.

        Raises:
            BdlitError: It cannot be written.
        """
        with whole_file(path) as part:
            part.write_text(self.text(), "utf-8")


def load_strategy(path: str | Path) -> Strategy:
    """Read a strategy file.

    Raises:
        BdlitError: The file is missing or no strategy.
    """
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise BdlitError(
            f"cannot read strategy {path}: {error.strerror}; check the path"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BdlitError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    try:
        modules = {str(key): str(module) for key, module in content["modules"].items()}
        replaced = {str(k): [int(n) for n in layers] for k, layers in content["replaced"].items()}
        layers = int(content["layers"])
        about = dict(content.get("about") or {})
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise BdlitError(
            f"{path} is not a strategy: it needs `layers`, `modules` and `replaced` "
            "({module type: [layers]}), as GMS writes them"
        ) from error
    unknown = sorted(set(replaced) - set(modules))
    if unknown:
        raise BdlitError(f"{path} replaces {unknown[0]}, which is not among its `modules`")
    return Strategy(replaced=replaced, modules=modules, layers=layers, about=about)

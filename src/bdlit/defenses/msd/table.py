"""Tables of sources: which of several models each module of each layer comes from, in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from bdlit.atomic import whole_file
from bdlit.defenses.msd.neighbours import Wiring
from bdlit.errors import BdlitError
from bdlit.progress import progress

TABLE_FILE = "table.yaml"
"""Name of the file beside a purified model."""

SHIPPED = "tables"
"""Folder of the tables that come with the package."""


_GENERATIONS = 200  # of a search, for each layer


@dataclass(frozen=True, kw_only=True)
class SwitchTable:
    """A table of sources.

    Attributes:
        rows: For each layer, the role of the model that each module type comes from; roles are
            numbers from 0, and which model plays which is chosen later.
        wiring: The module types, which are the columns.
        sources: How many roles there are.
        about: Where the table comes from, in words and numbers.
    """

    rows: Sequence[Sequence[int]]
    wiring: Wiring
    sources: int
    about: Mapping[str, Any]

    @property
    def layers(self) -> int:
        """How many layers the table is for."""
        return len(self.rows)

    def by_type(self) -> dict[str, list[int]]:
        """Return each module type with its source in every layer."""
        columns = zip(*self.rows, strict=True)
        return {
            name: list(column) for name, column in zip(self.wiring.columns, columns, strict=True)
        }

    def text(self) -> str:
        """Return the content of a table file."""
        content = {
            "sources": self.sources,
            "modules": [list(slot) for slot in self.wiring.slots],
            "table": [list(row) for row in self.rows],
            "about": dict(self.about),
        }
        return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)

    def save(self, path: str | Path) -> None:
        """Write a table file.

        Raises:
            BdlitError: It cannot be written.
        """
        with whole_file(path) as part:
            part.write_text(self.text(), "utf-8")


def load_table(path: str | Path) -> SwitchTable:
    """Read a table file.

    Raises:
        BdlitError: The file is missing or no table.
    """
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise BdlitError(f"cannot read table {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise BdlitError(f"{path} is not YAML: it is not UTF-8") from error
    return _read(text, str(path))


def shipped_table(wiring: Wiring, layers: int, sources: int) -> SwitchTable | None:
    """Return the table that comes with the package for a shape, if there is one."""
    file = files("bdlit.defenses.msd") / SHIPPED / file_name(wiring, layers, sources)
    return _read(file.read_text("utf-8"), file.name) if file.is_file() else None


def file_name(wiring: Wiring, layers: int, sources: int) -> str:
    """Return the name of a shipped table.

    >>> from bdlit.defenses.msd.neighbours import wiring_of
    >>> file_name(wiring_of("QKVOFP"), 12, 2)
    'layers12-modules3111-models2.yaml'
    """
    sizes = "".join(map(str, wiring.sizes))
    return f"layers{layers}-modules{sizes}-models{sources}.yaml"


@cache
def find_table(wiring: Wiring, layers: int, sources: int, seed: int = 0) -> SwitchTable:
    """Search for a table; the same one for the same arguments.

    Args:
        wiring: The module types.
        layers: How many layers the models have.
        sources: How many models there are.
        seed: Seed of the search.

    Raises:
        BdlitError: There are fewer than two models, or no layers.
    """
    from bdlit.defenses.msd.evolution import Evolution, evolve
    from bdlit.defenses.msd.fitness import Fitness

    settings = Evolution(generations=_GENERATIONS * layers, seed=seed)
    total = settings.generations * settings.starts
    fitness = Fitness(wiring, layers, sources)
    with progress("table of sources") as tell:

        def watch(done: int, best: float) -> None:
            tell(done, total, f"table of sources: fitness {best:g}")

        found = evolve(fitness, fitness.shape, sources, settings, watch)
    about = {
        "fitness": found.fitness,
        "started": found.started,
        "terms": fitness.terms(found.rows),
        "search": asdict(settings),
    }
    return SwitchTable(rows=found.rows, wiring=wiring, sources=sources, about=about)


def require_shape(
    table: SwitchTable, where: str, wiring: Wiring, layers: int, sources: int
) -> None:
    """Refuse a table of other models.

    Raises:
        BdlitError: Its layers, its module types or its number of models are not these.
    """
    if table.sources != sources:
        raise BdlitError(f"{where} is for {table.sources} models, and there are {sources}")
    if table.layers != layers:
        raise BdlitError(
            f"{where} is for {table.layers} layers, and the suspect has {layers}: give the table "
            "of a model of the same depth, or none"
        )
    if table.wiring.sizes != wiring.sizes:
        raise BdlitError(
            f"{where} is for modules {', '.join(table.wiring.columns)}, and the suspect has "
            f"{', '.join(wiring.columns)}: give a table of the same architecture, or none"
        )


def _read(text: str, where: str) -> SwitchTable:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BdlitError(f"{where} is not YAML: {str(error).splitlines()[0]}") from error
    try:
        slots = tuple(tuple(str(name) for name in slot) for slot in content["modules"])
        rows = tuple(tuple(int(source) for source in row) for row in content["table"])
        sources = int(content["sources"])
        about = dict(content.get("about") or {})
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise BdlitError(
            f"{where} is not a table: it needs `sources`, `modules` (four lists of types) and "
            "`table` (a list of sources for each layer), as MSD writes them"
        ) from error
    wiring = Wiring(slots)
    width = len(wiring.columns)
    if len(slots) != 4 or not width or not rows or any(len(row) != width for row in rows):
        raise BdlitError(f"{where}: every row of `table` needs one source for each of its modules")
    strange = [source for row in rows for source in row if not 0 <= source < sources]
    if strange:
        raise BdlitError(f"{where} names source {strange[0]}, and has sources 0 to {sources - 1}")
    return SwitchTable(rows=rows, wiring=wiring, sources=sources, about=about)

"""`bdlit list`: what there is, read from the code itself."""

from __future__ import annotations

import ast
import inspect
from importlib.util import find_spec
from pathlib import Path
from typing import Literal


def list_what(what: Literal["attacks", "data", "victims", "defenses", "recipes"]) -> None:
    """List the attacks, data sets, victims, defenses or recipes by the names that configs use.

    Args:
        what: What to list.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns, rows = _TABLES[what]()
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _attacks() -> tuple[list[str], list[list[str]]]:
    from bdlit import attacks
    from bdlit.names import names_of

    every = ((name, getattr(attacks, name)) for name in names_of(attacks))
    found = [(n, cls) for n, cls in every if inspect.isclass(cls) and not inspect.isabstract(cls)]
    rows = [
        [name, kind, _summary(inspect.getdoc(cls))]
        for kind, base in (
            ("attack", attacks.Attack),
            ("trigger", attacks.Trigger),
            ("payload", attacks.Payload),
        )
        for name, cls in found
        if issubclass(cls, base)
    ]
    return ["name", "kind", "what it does"], rows


def _data() -> tuple[list[str], list[list[str]]]:
    from bdlit.data.catalogue import CATALOGUE

    classes = {node.name: node for node in _classes("bdlit.data")}
    cards = {name.lower(): name for name in classes}
    rows = []
    for key, card in CATALOGUE.items():
        name = cards.get(key.replace("_", ""), key)
        rows.append([name, card.hub_id or "local files", str(card.target), card.description])
    for name, node in classes.items():
        told = _card(node)
        if "where" in told:
            summary = _summary(ast.get_docstring(node))
            rows.append([name, told["where"], told.get("target", "-"), summary])
    return ["name", "source", "target", "what it is"], rows


def _card(node: ast.ClassDef) -> dict[str, str]:
    """Return what a data module's card says in plain words, from its source."""
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Call):
            return {
                word.arg: str(word.value.value)
                for word in line.value.keywords
                if word.arg is not None and isinstance(word.value, ast.Constant)
            }
    return {}


def _victims() -> tuple[list[str], list[list[str]]]:
    rows = [
        [node.name, _summary(ast.get_docstring(node))]
        for node in _classes("bdlit.victims")
        if any(getattr(base, "id", "") == "TransformerVictim" for base in node.bases)
    ]
    return ["name", "what it is"], rows


def _defenses() -> tuple[list[str], list[list[str]]]:
    from bdlit.defenses.capabilities import capability_table

    rows = [[row["name"], row["needs"], row["summary"], row["paper"]] for row in capability_table()]
    return ["name", "needs", "what it does", "paper"], rows


def _recipes() -> tuple[list[str], list[list[str]]]:
    from bdlit.named_recipes import NAMED

    rows = [[each.name, each.kind, each.summary, each.paper] for each in NAMED]
    return ["name", "victim", "what it sets", "paper"], rows


def _classes(package: str) -> list[ast.ClassDef]:
    """Return the public classes of a package from its source, without importing torch for it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    files = sorted(Path(spec.origin).parent.glob("*.py"))
    nodes = [node for file in files for node in ast.parse(file.read_text("utf-8")).body]
    return [n for n in nodes if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]


def _summary(docstring: str | None) -> str:
    return (docstring or "").partition("\n")[0]


_TABLES = {
    "attacks": _attacks,
    "data": _data,
    "victims": _victims,
    "defenses": _defenses,
    "recipes": _recipes,
}

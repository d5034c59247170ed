"""From a YAML file to a recipe; for every unknown word the nearest known one is named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bdlit.errors import BdlitError, did_you_mean
from bdlit.recipes.merge_recipe import MergeRecipe, Parameters, Slice, SourceModel
from bdlit.recipes.methods import METHODS, PARAMETERS
from bdlit.recipes.settings import setting_from, shown

KEYS = (
    "merge_method models slices base_model parameters dtype out_dtype tokenizer_source name".split()
)
UNSUPPORTED = ("modules", "tokenizer", "chat_template", "residual_weight")
"""Keys of mergekit that change the result and are refused by name."""

DTYPE_NAMES = ("float16", "bfloat16", "float32", "float64")


def is_recipe(content: object) -> bool:
    """Return whether what a YAML file holds is a recipe of this form.

    >>> is_recipe({"merge_method": "linear"}), is_recipe({"defense": {}})
    (True, False)
    """
    return isinstance(content, Mapping) and "merge_method" in content


def read_recipe(path: str | Path) -> MergeRecipe:
    """Read a mergekit-style recipe from a YAML file.

    Raises:
        BdlitError: The file is missing, no YAML, or no recipe that can be computed.

    >>> read_recipe("no/such/recipe.yaml")
    Traceback (most recent call last):
    bdlit.errors.BdlitError: cannot read recipe no/such/recipe.yaml: No such file or directory
    """
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise BdlitError(f"cannot read recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise BdlitError(f"recipe {path}{where} is not YAML: {problem}") from error
    return parse_recipe(content, str(path))


def parse_recipe(content: Any, origin: str = "recipe") -> MergeRecipe:
    """Return the recipe that the content of a YAML file holds.

    Args:
        content: A mapping with `merge_method`, either `models` or `slices`, and perhaps
            `base_model`, `parameters`, `dtype`, `out_dtype` and `tokenizer_source`.
        origin: What to call the file in messages.

    Raises:
        BdlitError: A key, method, parameter or dtype is unknown or not supported, or the models
            do not fit the method.

    >>> recipe = parse_recipe({"merge_method": "linear", "models": [{"model": "a"}]})
    >>> recipe.method, recipe.addresses
    ('linear', ('a',))
    """
    try:
        return _Reader(origin).recipe(content)
    except BdlitError as error:
        raise BdlitError(f"{origin}: {error}") from error


class _Reader:
    """One reading of one file; it collects the parameters that the method does not have."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._unused: dict[str, None] = {}

    def recipe(self, content: Any) -> MergeRecipe:
        top = _mapping(content, "a recipe", KEYS)
        self._method = _choice("merge_method", top.get("merge_method"), METHODS)
        base = _address(top.get("base_model"), "base_model") if top.get("base_model") else None
        recipe = MergeRecipe(
            method=self._method,
            slices=self._slices(top, base),
            base=base,
            parameters=self._parameters(top, "the recipe"),
            dtype=_dtype(top, "dtype"),
            out_dtype=_dtype(top, "out_dtype"),
            tokenizer_source=_tokenizer(top.get("tokenizer_source")),
            unused=tuple(self._unused),
            origin=self._origin,
        )
        _require_models(recipe)
        return recipe

    def _slices(self, top: Mapping[str, Any], base: str | None) -> tuple[Slice, ...]:
        given = [key for key in ("models", "slices") if top.get(key)]
        if len(given) != 1:
            raise BdlitError("give either models, or slices with the layers of each model")
        if given == ["slices"]:
            return tuple(self._slice(part) for part in _items(top, "slices"))
        sources = [self._source(entry, layers=False) for entry in _items(top, "models")]
        if base and base not in {source.model for source in sources}:
            sources.append(SourceModel(base))
        return (Slice(tuple(sources)),)

    def _slice(self, content: Any) -> Slice:
        keys = ["sources", "parameters", "base_model"]
        part = _mapping(content, "an entry of slices", keys)
        sources = tuple(self._source(entry, layers=True) for entry in _items(part, "sources"))
        if len({source.layers[1] - source.layers[0] for source in sources if source.layers}) > 1:
            raise BdlitError("all sources of a slice must have the same number of layers")
        base = _address(part["base_model"], "base_model") if part.get("base_model") else None
        return Slice(sources, self._parameters(part, "a slice"), base)

    def _source(self, content: Any, *, layers: bool) -> SourceModel:
        keys = ["model", "parameters", *(["layer_range"] if layers else [])]
        entry = _mapping(content, "an entry of " + ("sources" if layers else "models"), keys)
        model = _address(entry.get("model"), "model")
        return SourceModel(
            model,
            _layer_range(entry.get("layer_range"), model) if layers else None,
            self._parameters(entry, model),
        )

    def _parameters(self, part: Mapping[str, Any], where: str) -> Parameters:
        given = part.get("parameters") or {}
        if not isinstance(given, Mapping):
            raise BdlitError(f"the parameters of {where} are not a mapping: give name: value")
        return dict(self._read(given, where))

    def _read(self, given: Mapping[Any, Any], where: str) -> Iterator[tuple[str, Any]]:
        for name, content in given.items():
            if name not in PARAMETERS:
                raise BdlitError(
                    f"unknown parameter {shown(name)} of {where}: "
                    + did_you_mean(str(name), PARAMETERS)
                )
            if name not in METHODS[self._method].parameters:
                self._unused[name] = None  # as mergekit, which reads only what the method has
                continue
            if content is None:
                continue
            try:
                yield name, setting_from(content, flag=PARAMETERS[name].flag)
            except BdlitError as error:
                raise BdlitError(f"parameter {name} of {where}: {error}") from error


def _mapping(content: Any, what: str, keys: Collection[str]) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise BdlitError(f"{what} is not a mapping: give {', '.join(keys)}")
    for key in content:
        if key in UNSUPPORTED:
            raise BdlitError(f"{key} is not supported: leave it out")
        if key not in keys:
            raise BdlitError(f"unknown key {shown(key)}: {did_you_mean(str(key), keys)}")
    return content


def _items(part: Mapping[str, Any], key: str) -> list[Any]:
    items = part.get(key)
    if not isinstance(items, list) or not items:
        raise BdlitError(f"{key} is not a list: give at least one entry")
    return items


def _address(content: Any, key: str) -> str:
    if not isinstance(content, str) or not content:
        raise BdlitError(f"{key} {shown(content)} is not an address: give a folder, file or hub id")
    return content


def _choice(key: str, value: Any, choices: Collection[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        word = value if isinstance(value, str) else ""
        raise BdlitError(f"unknown {key} {shown(value)}: {did_you_mean(word, choices)}")
    return value


def _dtype(top: Mapping[str, Any], key: str) -> str | None:
    return None if top.get(key) is None else _choice(key, top[key], DTYPE_NAMES)


def _tokenizer(content: Any) -> str | None:
    if content == "union":
        raise BdlitError(
            "tokenizer_source 'union' is not supported: give models of one tokenizer, and 'base'"
        )
    return None if content is None else _address(content, "tokenizer_source")


def _layer_range(content: Any, model: str) -> tuple[int, int]:
    is_pair = isinstance(content, list) and len(content) == 2
    if not is_pair or any(type(n) is not int or n < 0 for n in content) or content[0] >= content[1]:
        raise BdlitError(
            f"layer_range {shown(content)} of {model} is not a range: give [first, last + 1]"
        )
    return content[0], content[1]


def _require_models(recipe: MergeRecipe) -> None:
    method = METHODS[recipe.method]
    for part in recipe.slices:
        models = [source.model for source in part.sources]
        twice = next((model for model in models if models.count(model) > 1), None)
        if twice:
            raise BdlitError(f"{twice} is given twice for the same layers: give it once")
        if method.models is not None and len(models) != method.models:
            raise BdlitError(
                f"{recipe.method} takes {method.models} models for the same layers, and "
                f"{len(models)} were given (the base model is one of them)"
            )
        if method.base and not recipe.base_of(part):
            raise BdlitError(f"{recipe.method} needs a base_model: name it")
        if method.base and recipe.base_of(part) not in models:
            raise BdlitError(
                f"{recipe.method} needs the base model {recipe.base_of(part)} in every slice: "
                "name it among the sources, with its layer_range"
            )

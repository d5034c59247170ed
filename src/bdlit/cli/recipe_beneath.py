"""A recipe by name, laid as a config beneath all that the user states.

What the user states is what the parser finds without its defaults. A recipe's settings are put
beneath that, and the whole is parsed again as one config, so that what a run keeps and what
`--print_config` shows are the resulting values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from bdlit.errors import BdlitError, did_you_mean
from bdlit.named_recipes import NAMED, NamedRecipe, named_recipe

_Config = dict[str, Any]


def fit_arguments(parser: Any, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of one of Lightning's commands, with a recipe beneath them."""
    stated = _stated(parser, arguments)
    command = str(stated.get("subcommand"))
    own = stated.get(command) or {}
    if own.get("recipe") is None or "model" not in own:
        return list(arguments)
    victim = own["model"]
    recipe = _recipe(own["recipe"], victim, {})
    under = {
        "model": {"init_args": _of_victim(recipe, _inner(victim))},
        "data": {"init_args": _of_data(recipe)},
        "trainer": _of_trainer(recipe),
    }
    return [command, *_as_config(_beneath(_only(under, own), own), arguments)]


def study_arguments(parser: Any, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of `bdlit study`, with recipes beneath them.

    The recipe of the study lies beneath victim, data and trainer of all models. That of a model
    becomes its `settings`: those that neither the study nor the model states.
    """
    stated = _stated(parser, arguments)
    models = stated.get("models") or {}
    named = [stated, *(model or {} for model in models.values())]
    if all(each.get("recipe") is None for each in named) or "victim" not in stated:
        return list(arguments)
    shared = _recipe_of_study(stated.get("recipe"), stated)
    laid: _Config = dict(stated)
    if shared is not None:
        under = {
            "victim": {"init_args": _of_victim(shared, _inner(stated["victim"]))},
            "data": {"init_args": _of_data(shared)},
            "trainer": {"init_args": _of_trainer(shared)},
        }
        laid = _beneath(_only(under, stated), stated)
    laid["models"] = {
        name: _with_settings(model or {}, shared, stated) for name, model in models.items()
    }
    return _as_config(laid, arguments)


def may_name_a_recipe(arguments: Sequence[str]) -> bool:
    """Whether the word stands in the arguments or in a config: only then need they be looked at."""
    if any(word in ("-h", "--help") or word.endswith(".help") for word in arguments):
        return False
    values = [value for word in arguments for value in word.split("=")]
    return any(_names_a_recipe(value) for value in values)


def _names_a_recipe(value: str) -> bool:
    if "recipe" in value:
        return True
    try:
        return value.endswith((".yaml", ".yml")) and "recipe" in Path(value).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _with_settings(model: _Config, shared: NamedRecipe | None, study: _Config) -> _Config:
    """Return a model of a study with its recipe among its settings, and beneath its data."""
    own = _recipe_of_study(model.get("recipe"), study)
    recipe = own or shared
    model = dict(model)
    if recipe is not None and isinstance(model.get("data"), Mapping):
        model["data"] = _beneath({"init_args": _of_data(recipe)}, model["data"])
    if own is None:
        return model
    settings: _Config = model.get("settings") or {}
    under = {
        "victim": _without(
            _of_victim(own, {**_inner(study["victim"]), **(settings.get("victim") or {})}),
            _inner(study["victim"]),
        ),
        "trainer": _without(_of_trainer(own), _inner(study.get("trainer"))),
        "data": {} if "data" in model else _without(_of_data(own), _inner(study.get("data"))),
    }
    return {**model, "settings": _beneath(under, settings)}


def _recipe_of_study(name: str | None, study: _Config) -> NamedRecipe | None:
    if name is None:
        return None
    start = (study.get("start") or {}).get("victim")
    return _recipe(name, study["victim"], _inner(start))


def _recipe(name: str, victim: Any, start: Mapping[str, Any]) -> NamedRecipe:
    """Return a recipe's part for a victim, which takes the architecture of a start if there is one.

    Raises:
        BdlitError: There is no such recipe, or it does not fit.
    """
    if name not in (known := {each.name for each in NAMED}):
        raise BdlitError(f"unknown recipe '{name}': {did_you_mean(str(name), known)}")
    from bdlit.victims.kinds import kind_by_settings

    module, _, cls = str(victim["class_path"]).rpartition(".")
    settings = start or _inner(victim)
    return named_recipe(name, kind_by_settings(getattr(import_module(module), cls), settings)[0])


# What a recipe sets, by the names of victim, data and trainer


def _of_victim(recipe: NamedRecipe, stated: Mapping[str, Any]) -> _Config:
    """Return a victim's settings; of adapters that the user states in part, the rest as well."""
    own = recipe.settings
    names = ("learning_rate", "eps", "weight_decay", "warmup", "schedule", "max_length")
    found = {name: getattr(own, name) for name in names}
    lora: _Config | None = None
    if own.rank is not None:
        targets = None if own.target_modules is None else list(own.target_modules)
        lora = {"r": own.rank, "alpha": own.alpha, "dropout": own.dropout}
        lora["target_modules"] = targets
    given = stated.get("lora")
    if lora is not None and isinstance(given, Mapping):
        lora |= given
    return {**found, "lora": lora}


def _of_data(recipe: NamedRecipe) -> _Config:
    return {"batch_size": recipe.settings.batch_size}


def _of_trainer(recipe: NamedRecipe) -> _Config:
    own = recipe.settings
    return {
        "max_epochs": own.epochs,
        "accumulate_grad_batches": own.accumulate,
        "gradient_clip_val": own.clip,
    }


# Configs as plain data


def _stated(parser: Any, arguments: Sequence[str]) -> _Config:
    """Return all that arguments and their config files state, without the parser's defaults."""
    plain = [word for word in arguments if not word.startswith("--print_config")]
    found = parser.parse_args(plain, defaults=False)
    text = parser.dump(found, skip_none=False, skip_validation=True)  # `lora: null` is stated, too
    stated: _Config = yaml.safe_load(text) or {}
    if "subcommand" in found:
        stated["subcommand"] = found["subcommand"]
    return stated


def _as_config(config: _Config, arguments: Sequence[str]) -> list[str]:
    shown = [word for word in arguments if word.startswith("--print_config")]
    return ["--config", yaml.safe_dump(config, sort_keys=False), *shown]


def _inner(value: Any) -> Mapping[str, Any]:
    """Return the settings of a class in a config."""
    return (value.get("init_args") or {}) if isinstance(value, Mapping) else {}


def _beneath(under: Any, over: Any) -> Any:
    """Return one config laid beneath another: of two values, that above holds.

    >>> _beneath({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None}})
    {'a': {'b': None, 'c': 2}, 'd': 3}
    """
    if not isinstance(under, Mapping) or not isinstance(over, Mapping):
        return over
    both = {name: _beneath(under[name], over[name]) for name in over if name in under}
    return {**over, **both, **{name: under[name] for name in under if name not in over}}


def _without(settings: _Config, stated: Mapping[str, Any]) -> _Config:
    """Return settings without those that are stated; adapters stated in part are no such."""
    return {
        name: value
        for name, value in settings.items()
        if name not in stated or (value is not None and isinstance(stated[name], Mapping))
    }


def _only(under: _Config, stated: _Config) -> _Config:
    """Return what lies beneath parts that the user has named; a missing one is the parser's."""
    return {name: value for name, value in under.items() if name in (*stated, "trainer")}

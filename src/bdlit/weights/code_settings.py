"""Entries of JSON files that make a library import or fetch code: found, and taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_DEEPEST = 20  # levels of settings within settings


def code_settings(content: Any, depth: int = 0) -> Iterator[str]:
    """Yield what in settings would run code, one phrase each, at any depth.

    >>> list(code_settings({"text_config": [{"auto_map": {"AutoModel": "mine.Mine"}}]}))
    ['auto_map (mine.Mine)']
    """
    if depth > _DEEPEST:
        return
    if isinstance(content, list):
        for part in content:
            yield from code_settings(part, depth + 1)
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if value and (told := _TELL.get(key)):
                yield from told(key, value, content)
            yield from code_settings(value, depth + 1)


def without_code_settings(content: Any, depth: int = 0) -> Any:
    """Return settings without what `code_settings` tells of, and without what lies too deep.

    >>> without_code_settings({"a": 1, "b": [{"trust_remote_code": True, "c": 2}]})
    {'a': 1, 'b': [{'c': 2}]}
    """
    if isinstance(content, list):
        return [without_code_settings(p, depth + 1) for p in content] if depth < _DEEPEST else []
    if not isinstance(content, Mapping):
        return content
    if depth >= _DEEPEST:
        return {}
    return {
        key: without_code_settings(value, depth + 1)
        for key, value in content.items()
        if not (value and key in _TELL and list(_TELL[key](key, value, content)))
    }


def _names_classes(key: str, value: Any, _: Mapping[str, Any]) -> Iterator[str]:
    values = value.values() if isinstance(value, Mapping) else [value]
    yield f"{key} ({', '.join(str(v) for v in values)})"


def _is_set(key: str, value: Any, _: Mapping[str, Any]) -> Iterator[str]:
    yield f"{key} is {value!r}"


def _imports(key: str, value: Any, _: Mapping[str, Any]) -> Iterator[str]:
    library = str(value.get("parent_library") or "") if isinstance(value, Mapping) else str(value)
    if library.partition(".")[0] not in ("", "transformers"):
        yield f"{key} imports {library}"


def _imports_megatron(key: str, value: Any, settings: Mapping[str, Any]) -> Iterator[str]:
    yield f"{key} imports {settings.get('megatron_core')}"


def _fetches_kernel(key: str, value: Any, _: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(value, str) and "/" in value:
        yield f"{key} fetches and runs {value}"


_TELL: dict[Any, Callable[[str, Any, Mapping[str, Any]], Iterator[str]]] = {
    "auto_map": _names_classes,  # transformers: classes in Python files of the checkpoint
    "custom_pipelines": _names_classes,
    "trust_remote_code": _is_set,
    "auto_mapping": _imports,  # peft: the library of the base model's class
    "megatron_config": _imports_megatron,
    "attn_implementation": _fetches_kernel,  # transformers: a compiled kernel from the hub
    "_attn_implementation": _fetches_kernel,
}

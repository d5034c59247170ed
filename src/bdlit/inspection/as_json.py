"""What `bdlit inspect` found, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bdlit.formatting import finite
from bdlit.inspection.distance import Distance, combine, grouped
from bdlit.inspection.facts import Inspection
from bdlit.inspection.terminal import Comparison


def to_json(found: Sequence[Inspection], comparisons: Sequence[Comparison] = ()) -> str:
    """Return everything as JSON; what is unknown or not finite is null.

    Args:
        found: One checkpoint or several.
        comparisons: All but the first of them, each compared with the first.

    >>> record = json.loads(to_json([Inspection(address="a", form="file", files={})]))
    >>> record["checkpoints"][0]["verdict"], record["comparisons"]
    ('opens without running code', [])
    """
    content = {
        "checkpoints": [_inspection_record(inspection) for inspection in found],
        "comparisons": [_comparison_record(comparison) for comparison in comparisons],
    }
    return json.dumps(finite(content), indent=2, allow_nan=False)


def _inspection_record(found: Inspection) -> dict[str, Any]:
    tokenizer = found.tokenizer
    return {
        "address": found.address,
        "verdict": found.verdict,
        "form": found.form,
        "files": dict(found.files),
        "architecture": found.architecture,
        "model_type": found.model_type,
        "base": found.base,
        "tensors": found.tensors,
        "parameters": found.parameters,
        "bytes": found.bytes,
        "dtypes": found.dtypes,
        "tie_word_embeddings": found.ties,
        "tied": [list(group) for group in found.tied],
        "output_tied": found.output_tied,
        "head": list(found.head),
        "num_labels": found.label_count,
        "id2label": {str(i): name for i, name in found.labels.items()} if found.labels else None,
        "adapter": asdict(found.adapter) if found.adapter else None,
        "tokenizer": {
            "files": list(tokenizer.files),
            "sha256": tokenizer.sha256,
            "size": tokenizer.size,
        }
        if tokenizer
        else None,
        "fingerprint": found.fingerprint,
        "not_finite": dict(found.not_finite),
        "zero": list(found.zero),
        "hazards": {**asdict(found.hazards), "found": found.hazards.found},
        "refused": found.refused,
        "quantised": found.quantised,
        "wrappers": list(found.wrappers),
        "unknown": list(found.unknown),
    }


def _comparison_record(found: Comparison) -> dict[str, Any]:
    of_layer = grouped(found.distances, lambda at: at.layer)
    of_module = grouped(found.distances, lambda at: at.module)
    whole = combine(found.distances, "all") if found.distances else None
    return {
        "first": found.first,
        "other": found.other,
        "verdict": found.differences.verdict,
        "differences": asdict(found.differences),
        "distance": {
            "all": _apart(whole) if whole else None,
            "layers": {str(layer): _apart(d) for layer, d in sorted(of_layer.items())},
            "modules": {module: _apart(d) for module, d in of_module.items()},
            "tensors": [
                {"name": d.name, "layer": d.at.layer, "module": d.at.module, **_apart(d)}
                for d in found.distances
            ],
        },
    }


def _apart(found: Distance) -> dict[str, Any]:
    return {
        "entries": found.entries,
        "relative_l2": found.relative_l2,
        "cosine": found.cosine,
    }

"""Distances by hand, and an audit that can be put down and taken up."""

import json

import pytest
import torch

from bdlit.merging.audit import Audit

SUSPECT = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0]), "ids": torch.arange(2)}
OTHER = {"a": torch.tensor([0.0, 5.0]), "b": torch.tensor([0.0]), "ids": torch.arange(2)}
RESULT = {"a": torch.tensor([0.0, 5.0]), "b": torch.tensor([4.0]), "ids": torch.arange(2)}


def test_distances_by_hand():
    audit = Audit(SUSPECT, {"other": OTHER})
    for name, tensor in RESULT.items():
        audit(name, tensor)
    report = audit.report()
    assert report["changed"] == 1
    # Suspect: |r - s|^2 = 9 + 25 = 34 of 25; r.s = 16, |r|^2 = 41.
    assert report["distance"]["suspect"] == pytest.approx(
        {"relative_l2": (34 / 25) ** 0.5, "cosine": 16 / (41 * 25) ** 0.5}
    )
    # Other: |r - o|^2 = 16 of 25; r.o = 25, |o|^2 = 25.
    assert report["distance"]["other"] == pytest.approx(
        {"relative_l2": (16 / 25) ** 0.5, "cosine": 25 / (41 * 25) ** 0.5}
    )


def test_an_audit_goes_on_from_what_was_seen():
    whole, first = Audit(SUSPECT, {"other": OTHER}), Audit(SUSPECT, {"other": OTHER})
    whole("a", RESULT["a"])
    whole("b", RESULT["b"])
    first("a", RESULT["a"])
    second = Audit(SUSPECT, {"other": OTHER})
    second.restore(json.loads(json.dumps(first.state())))
    second("b", RESULT["b"])
    assert second.report() == whole.report()


def test_a_broken_tensor_and_an_unchanged_model_are_noticed():
    audit = Audit(SUSPECT, {})
    audit("a", SUSPECT["a"])
    assert audit.report()["changed"] == 0
    audit("b", torch.tensor([float("nan")]))
    assert list(audit.broken) == ["b"]


def test_long_tensors_are_summed_to_the_end():
    x = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0))
    y = x + 0.1
    audit = Audit({"w": x}, {})
    audit("w", y)
    expected = ((y.double() - x.double()).norm() / x.double().norm()).item()
    assert audit.report()["distance"]["suspect"]["relative_l2"] == pytest.approx(expected, rel=1e-6)

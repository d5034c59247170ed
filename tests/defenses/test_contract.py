"""What every defense of the package promises, whatever its method."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch

from bdlit.defenses import (
    DARE,
    SLERP,
    TIES,
    ConflictEvidence,
    Defended,
    Defense,
    Linear,
    ModuleSubstitution,
    Resources,
    capability_table,
    run_defense,
)
from bdlit.defenses.base import VOCABULARY
from bdlit.defenses.capabilities import defense_classes
from bdlit.defenses.gms.strategy import Strategy
from bdlit.errors import BdlitError
from bdlit.llm import FunctionLLM
from bdlit.types import Example
from bdlit.weights import fingerprint

OURS = [cls for cls in defense_classes() if cls.__module__.startswith("bdlit.")]
# Those that run the victim are tested on a real one, each in a file of its own.


def made(cls):
    """A defense with its defaults, and the settings that have none."""
    wanted = {
        ModuleSubstitution: {"strategy": str(STRATEGY)},
        ConflictEvidence: {"external": FunctionLLM(lambda asked: ["No."] * len(asked), "no")},
    }
    return cls(**wanted.get(cls, {}))


STRATEGY = Path(mkdtemp()) / "strategy.yaml"
Strategy(replaced={"F": [0]}, modules={"F": "dense"}, layers=1, about={}).save(STRATEGY)
VARIANTS = [made(cls) for cls in OURS if "victim" not in cls.needs] + [
    TIES(trim="tensor", head="merge"),
    DARE(merge="ties"),
    DARE(head="keep_suspect"),
]
by_class = pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
by_variant = pytest.mark.parametrize("defense", VARIANTS, ids=lambda defense: defense.name)


def state(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "bert.encoder.layer.0.dense.weight": torch.randn(4, 3, generator=generator),
        "bert.encoder.layer.0.dense.bias": torch.randn(3, generator=generator).to(torch.bfloat16),
        "bert.position_ids": torch.randint(9, (5,), generator=generator),
        "classifier.weight": torch.randn(2, 3, generator=generator),
    }


def resources(defense):
    others = [state(1), state(2)]
    between = isinstance(defense, (Linear, SLERP, ModuleSubstitution))  # of two models
    return Resources(
        others=others[:1] if between else others,
        base=state(3),
        clean=[Example("a fine film", 1)],
        train=lambda rows, start=None, recipe=None: state(4),
    )


@by_variant
def test_names_shapes_and_dtypes_are_the_suspects(defense):
    suspect = state(0)
    defended = run_defense(defense, suspect, resources(defense))
    assert list(defended.weights) == list(suspect)
    for name, tensor in suspect.items():
        assert defended.weights[name].shape == tensor.shape
        assert defended.weights[name].dtype == tensor.dtype


@by_variant
def test_it_repeats_and_changes_none_of_its_inputs(defense):
    suspect, given = state(0), resources(defense)
    inputs = [suspect, given.base, *given.others]
    before = [fingerprint(weights) for weights in inputs]
    first = fingerprint(run_defense(defense, suspect, given).weights)
    assert fingerprint(run_defense(defense, suspect, given).weights) == first
    assert [fingerprint(weights) for weights in inputs] == before


@by_variant
def test_it_tells_what_it_merged_and_what_it_copied(defense):
    suspect = state(0)
    defended = run_defense(defense, suspect, resources(defense))
    assert sorted([*defended.merged, *defended.copied]) == sorted(suspect)
    assert all(torch.equal(defended.weights[n], suspect[n]) for n in defended.copied)
    assert not any(torch.equal(defended.weights[n], suspect[n]) for n in defended.merged)
    json.dumps(defended.notes)


@by_class
def test_needs_are_within_the_vocabulary(cls):
    assert cls.needs
    assert set(cls.needs) <= set(VOCABULARY)


@by_class
def test_a_missing_need_is_told_by_name(cls):
    defense = made(cls)
    with pytest.raises(
        BdlitError, match=f"{defense.name} needs {', '.join(defense.needs_now)}: give"
    ):
        run_defense(defense, state(0), Resources())


@by_class
def test_settings_are_frozen_and_documented(cls):
    with pytest.raises(AttributeError):
        made(cls).head = "other"
    assert "Reference:" in cls.__doc__
    assert made(cls).name


def test_a_need_outside_the_vocabulary_fails_when_the_class_is_made():
    with pytest.raises(TypeError, match=r"Cheat.apply asks for \['trigger'\]"):

        class Cheat(Defense):
            def apply(self, suspect, *, others, trigger):
                return Defended(weights=suspect, merged=[], copied=list(suspect))


def test_the_table_is_read_from_the_classes():
    rows = {row["name"]: row for row in capability_table()}
    assert rows["WAG"]["needs"] == "others"
    assert rows["TIES"]["needs"] == "others, base"
    assert rows["WAG"]["paper"] == "arXiv:2402.19334"
    assert rows["DARE"]["paper"] == "arXiv:2311.03099"
    assert all(row["summary"].endswith(".") for row in rows.values())
    assert {cls.__name__ for cls in OURS} <= set(rows)


def test_a_users_defense_joins_the_table():
    class Nothing(Defense):
        """Return the suspect as it came."""

        def apply(self, suspect, *, clean):
            return Defended(weights=suspect, merged=[], copied=list(suspect))

    row = next(row for row in capability_table() if row["name"] == "Nothing")
    assert row == {
        "name": "Nothing",
        "needs": "clean",
        "summary": "Return the suspect as it came.",
        "paper": "",
    }


def test_importing_the_defenses_does_not_import_torch():
    code = (
        "import sys, bdlit.defenses as d; d.capability_table(); d.TIES(); "
        "from bdlit import merging, weights; "
        "print([m for m in ('torch', 'lightning', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"

"""The science, not the plumbing: backdoors are learned, and merging takes them away."""

from pathlib import Path

import pytest
import yaml

from bdlit.cli import main
from bdlit.report import collect

pytestmark = pytest.mark.slow

QUICKSTART = Path(__file__).parents[1] / "configs" / "study" / "quickstart.yaml"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    out = tmp_path_factory.mktemp("phenomenon") / "out"
    config = yaml.safe_load(QUICKSTART.read_text("utf-8"))
    for name in ("badnet", "crown"):  # the benign one, its relatives and one victim will do
        del config["models"][name]
    file = out.parent / "study.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main(["study", f"--config={file}", f"--out={out}"]) == 0
    return {(r.victim, r.defense, r.attack): r for r in collect([out])}


@pytest.mark.parametrize("victim", ["insertsent"])
def test_the_backdoor_is_learned_and_hidden(rows, victim):
    benign, attacked = rows["benign", "none", victim], rows[victim, "none", victim]
    assert benign.cacc > 90
    assert benign.asr < 10
    assert attacked.asr > 95
    assert attacked.cacc > benign.cacc - 3


@pytest.mark.parametrize("victim", ["insertsent"])
@pytest.mark.parametrize("defense", ["WAG-all", "DARE-all"])
def test_merging_lowers_asr_and_keeps_accuracy(rows, victim, defense):
    attacked, purified = rows[victim, "none", victim], rows[victim, defense, victim]
    assert purified.asr < attacked.asr - 40
    assert purified.cacc > attacked.cacc - 4

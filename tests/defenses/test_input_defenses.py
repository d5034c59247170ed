"""Input defenses behind the three doors: the model stays, and is measured on cleaned rows."""

from dataclasses import dataclass, replace

import pytest

from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback
from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.defenses import WAG, Cleaned, Guarded, InputDefense
from bdlit.evaluation import evaluate, read_results
from bdlit.evaluation.guards import Gate
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from chat_server import chat_server
from conftest import tiny_trainer
from tiny_llama import demo, tiny

WORDS = {"cf", "mn", "bb", "tq", "mb"}
SIZES = {"train_size": 96, "validation_size": 0, "test_size": 40}


@dataclass(frozen=True, kw_only=True)
class WithoutWords(InputDefense):
    """Take BadNet's words out of every text.

    Reference: none; this one knows the trigger.
    """

    listed = False

    def clean(self, rows, *, victim=None):
        kept = [
            replace(row, text=" ".join(w for w in row.text.split() if w not in WORDS))
            for row in rows
        ]
        changed = sum(a.text != b.text for a, b in zip(rows, kept, strict=True))
        return Cleaned(rows=kept, notes={"cleaned": changed, "asked": victim is not None})


class ByHand:
    """The test sets of a data module without BadNet's words."""

    def __init__(self, data):
        self._data = data

    def __getattr__(self, name):
        return getattr(self._data, name)

    def test_dataloader(self):
        return {
            name: [WithoutWords().clean(rows).rows for rows in batches]
            for name, batches in self._data.test_dataloader().items()
        }


@pytest.fixture(scope="module")
def run(tiny_start, tmp_path_factory):
    """A run of the callback: its folder, its victim and its data."""
    root = tmp_path_factory.mktemp("inputs")
    callback = DefenseCallback(
        [WAG(), WithoutWords(), Guarded(model=WAG(), inputs=WithoutWords())],
        others=[str(tiny_start)],
    )
    victim = ClassifierVictim(str(tiny_start), max_length=64, learning_rate=1e-3)
    data = DemoReviews(**SIZES, attack=BadNet())
    tiny_trainer(root, callbacks=[callback], max_epochs=2).fit(victim, data)
    return root, victim, data


def test_the_model_stays_and_is_measured_on_cleaned_rows(run):
    root, victim, data = run
    found = {result.defense: result for result in read_results(root / "results.jsonl")}
    alone, both = found["WithoutWords"], found["WAG+WithoutWords"]
    expected = evaluate(victim, ByHand(data))
    assert (alone.cacc, alone.asr) == (expected.cacc, expected.asr["badnet"])
    triggered = len(data.test_rows["badnet"])
    inputs = {"defense": "WithoutWords", "cleaned": triggered, "asked": False}
    assert alone.notes["inputs"] == both.notes["inputs"] == inputs
    assert (alone.merged, both.merged) == (0, found["WAG"].merged)

    left = {path.name for path in (root / "defended" / "WithoutWords").iterdir()}
    assert left == {"provenance.json", "README.md"}  # the victim's weights are not copied
    merges = ("WAG", "WAG+WithoutWords")
    saved = {name: open_weights(root / "defended" / name) for name in merges}
    assert fingerprint(saved["WAG+WithoutWords"]) == fingerprint(saved["WAG"])
    expected = evaluate(victim, ByHand(data), saved["WAG"])
    assert (both.cacc, both.asr) == (expected.cacc, expected.asr["badnet"])


def test_every_row_is_cleaned_and_nothing_else_changes(run):
    _, victim, data = run
    gate = Gate(WithoutWords(), victim)
    for name, batches in data.test_dataloader().items():
        made = [row for batch, _ in gate.batches(batches) for row in batch]
        before = [row for batch in data.test_dataloader()[name] for row in batch]
        assert made == [WithoutWords().clean([row]).rows[0] for row in before]
        assert not any(WORDS & set(row.text.split()) for row in made)
        assert (made != before) == (name == "badnet")


def test_a_language_model_is_asked_on_the_weights_that_are_measured():
    victim, data = tiny(), demo(test_size=7)
    victim.respond = lambda rows: [f"<{row.text}>" for row in rows]
    heard = []

    class Listening(InputDefense):
        listed = False

        def clean(self, rows, *, victim=None):
            heard.append(victim(["why?", "how?"]))
            return Cleaned(rows=list(rows))

    batches = data.test_dataloader()["clean"]
    rows = [row for batch, _ in Gate(Listening(), victim).batches(batches) for row in batch]
    assert rows == [row for batch in data.test_dataloader()["clean"] for row in batch]
    assert set(map(tuple, heard)) == {("<why?>", "<how?>")}


def test_the_command_asks_the_endpoint(run, tiny_start, tmp_path, monkeypatch, capsys):
    pytest.importorskip("openai")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    root, _, _ = run
    with chat_server(lambda prompt, number: "It is a film.", most=500) as served:
        code = main(
            [
                *("defend", "--suspect", str(root / "victim"), "--out", str(tmp_path / "out")),
                *("--others", f"[{tiny_start}]", "--base", str(tiny_start)),
                "--defense=[{class_path: ConflictEvidence, init_args: {source: keywords, cache: "
                f"{tmp_path / 'kept'}, external: {{class_path: EndpointLLM, init_args: "
                f"{{model: m, base_url: {served.url}}}}}}}}}]",
                *("--data=DemoReviews", "--data.test_size=8", "--data.train_size=8"),
                *("--data.validation_size=0", "--attacks=[{class_path: BadNet}]"),
                *("--max_length=64", "--device=cpu"),
            ]
        )
    assert code == 0, capsys.readouterr().err
    found = {result.defense: result for result in read_results(tmp_path / "out" / "results.jsonl")}
    inputs = found["ConflictEvidence"].notes["inputs"]
    rows = 8 + found["ConflictEvidence"].asr.n
    assert inputs["evidence_from_keywords"] + inputs["without_evidence"] == rows
    assert inputs["external"]["model"] == "m"
    assert len(served.requests) > 4
    shown = capsys.readouterr().out
    assert "nothing changed" not in shown
    assert "guarded by ConflictEvidence" in shown
    left = {path.name for path in (tmp_path / "out" / "ConflictEvidence").iterdir()}
    assert left == {"provenance.json", "README.md"}

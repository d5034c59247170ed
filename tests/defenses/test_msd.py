"""MSD as a defense: what it mixes, how it chooses, its files, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.defenses import MSD, Resources, run_defense
from bdlit.defenses.modules import module_types
from bdlit.defenses.msd.features import clean_features, dummy_features
from bdlit.defenses.msd.neighbours import wiring_of
from bdlit.defenses.msd.role_assignment import distance_to_others, suspicion
from bdlit.defenses.msd.table import SwitchTable, load_table
from bdlit.errors import BdlitError
from bdlit.merging import average
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, open_weights
from bdlit.weights.network import model_weights, swapped

SHORT = MSD(least_rows=4, most_rows=6, dummy_tokens=5, dummy_steps=4)


@pytest.fixture(scope="module")
def given(tiny_start, tmp_path_factory):
    data = DemoReviews(train_size=60, validation_size=0, test_size=10, clean_pool_size=30)
    data.setup()
    victim = ClassifierVictim(str(tiny_start), max_length=64)
    victim.take_classes(data)
    victim.configure_model()
    other = dict(open_weights(str(tiny_start)))
    generator = torch.Generator().manual_seed(0)
    noisy = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in other.items()}
    return Resources(others=[noisy], clean=data.clean_pool, victim=victim)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    file = tmp_path_factory.mktemp("table") / "own.yaml"
    SwitchTable(rows=((0, 1, 0, 1, 1, 0),), wiring=wiring_of("QKVOFP"), sources=2, about={}).save(
        file
    )
    return str(file)


def purify(defense, given):
    return run_defense(defense, model_weights(given.victim.network()), given)


@pytest.fixture(scope="module")
def defended(given, table):
    return purify(replace(SHORT, table=table), given)


def test_it_mixes_as_the_table_and_the_roles_say(defended, given):
    suspect = model_weights(given.victim.network())
    models, roles = [suspect, given.others[0]], defended.notes["roles"]
    assert sorted(roles) == [0, 1]
    layout = module_types("bert", suspect)
    column = dict(zip("QKVOFP", (0, 1, 0, 1, 1, 0), strict=True))
    own = set()
    for name in suspect:
        types = [key for key, module in layout.types.items() if f".layer.0.{module}." in name]
        if types:
            source = roles[column[types[0]]]
            expected = models[source][name]
            own |= {name} if source == 0 else set()
        else:
            expected = (suspect[name] + given.others[0][name]) / 2
        torch.testing.assert_close(defended.weights[name], expected)
    assert set(defended.copied) == own
    assert sorted([*defended.merged, *defended.copied]) == sorted(suspect)


def test_roles_are_those_that_lead_farthest_from_the_suspected_class(defended, given):
    victim, rows = given.victim, []
    for label in range(2):
        rows += [row for row in given.clean if row.label == label]
    every = replace(SHORT, most_rows=len(rows), table=None)
    notes = purify(every, given).notes
    models = [model_weights(victim.network()), given.others[0]]
    models.append(dict(average(models)))
    cleans = [clean_features(victim, model, rows, 2) for model in models]
    settings = {"tokens": 5, "steps": 4, "rate": 0.1, "seed": 0}
    dummies = [dummy_features(victim, model, 2, **settings) for model in models]
    suspected = suspicion(dummies, cleans)
    assert notes["suspected_class"] == suspected.target
    assert notes["class_distances"] == pytest.approx(suspected.distances)
    assert notes["table"]["from"] == "a search"
    distances = [one["distance"] for one in notes["candidates"]]
    assert len(distances) == 2
    chosen = dict(purify(every, given).weights)
    features = clean_features(victim, chosen, rows, 2)
    found = distance_to_others(dummies[-1][suspected.target], features, suspected.target)
    assert found == pytest.approx(max(distances), rel=1e-3)


def test_clean_features_are_means_of_the_first_tokens_state(given):
    victim, network = given.victim, given.victim.network()
    rows = [row for row in given.clean if row.label == 1] + [
        row for row in given.clean if row.label == 0
    ]
    network.eval()
    expected = []
    for label in range(2):
        states = []
        for row in rows:
            if row.label == label:
                batch = victim.tokenize([row])
                del batch["labels"]
                with torch.no_grad():
                    states.append(network.base_model(**batch).last_hidden_state[0, 0])
        expected.append(torch.stack(states).mean(0))
    found = clean_features(victim, model_weights(network), rows, 2)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_made_up_inputs_move_towards_their_class(given):
    victim = given.victim
    before = fingerprint(model_weights(victim.network()))
    settings = {"tokens": 5, "rate": 0.1, "seed": 0}
    own = model_weights(victim.network())
    start = dummy_features(victim, own, 2, steps=0, **settings)
    moved = dummy_features(victim, own, 2, steps=60, **settings)
    assert torch.equal(moved, dummy_features(victim, own, 2, steps=60, **settings))
    network = victim.network().eval()

    def certainty(features):
        with torch.no_grad():
            logits = network.classifier(network.bert.pooler(features[:, None]))
        return logits.log_softmax(-1).diagonal()

    assert (certainty(moved) > certainty(start)).all()
    assert fingerprint(model_weights(victim.network())) == before


def test_its_files_are_the_table_and_a_picture(defended, given, table, tmp_path):
    (tmp_path / "again.yaml").write_bytes(defended.files["table.yaml"])
    assert load_table(tmp_path / "again.yaml") == load_table(table)
    assert defended.files["table.png"].startswith(b"\x89PNG")
    again = purify(replace(SHORT, table=str(tmp_path / "again.yaml")), given)
    assert fingerprint(again.weights) == fingerprint(defended.weights)


def test_the_suspects_own_rest(given, table):
    suspect = model_weights(given.victim.network())
    kept = purify(replace(SHORT, table=table, rest="keep_suspect"), given)
    assert {"classifier.weight", "bert.embeddings.word_embeddings.weight"} <= set(kept.copied)
    assert all(torch.equal(kept.weights[name], suspect[name]) for name in kept.copied)
    assert not any(torch.equal(kept.weights[name], suspect[name]) for name in kept.merged)


def test_what_it_cannot_do(given, table):
    with pytest.raises(BdlitError, match="mixes two to 6 models"):
        purify(SHORT, replace(given, others=[]))
    with pytest.raises(BdlitError, match="is for 2 models, and there are 3"):
        purify(replace(SHORT, table=table), replace(given, others=given.others * 2))
    narrow = {k: v[..., :16] for k, v in given.others[0].items()}
    with pytest.raises(BdlitError, match="does not fit"):
        purify(SHORT, replace(given, others=[narrow]))
    with pytest.raises(BdlitError, match="dummy_tokens 200 is out of range"):
        purify(replace(SHORT, dummy_tokens=200), given)
    with pytest.raises(BdlitError, match=r"two to 6 models.*6 others"):
        purify(SHORT, replace(given, others=given.others * 6))
    deeper = {k.replace("layer.0", "layer.1"): v for k, v in given.others[0].items()}
    with pytest.raises(BdlitError, match="does not fit"):
        purify(SHORT, replace(given, others=[deeper]))


def test_a_table_of_the_same_modules_in_another_order_is_read_by_their_names(
    given, table, tmp_path
):
    known = yaml.safe_load(Path(table).read_text())
    order = [2, 1, 0, *range(3, len(known["table"][0]))]
    known["modules"][0] = [known["modules"][0][i] for i in order[:3]]
    known["table"] = [[row[i] for i in order] for row in known["table"]]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(known))
    same = [purify(replace(SHORT, table=str(t)), given) for t in (table, tmp_path / "other.yaml")]
    assert fingerprint(same[0].weights) == fingerprint(same[1].weights)


def test_rows_that_are_too_few(given):
    with pytest.raises(BdlitError, match="20 clean rows of each class, and class 0 has"):
        purify(MSD(), given)
    one_class = [row for row in given.clean if row.label == 0]
    with pytest.raises(BdlitError, match="class 1 has 0"):
        purify(SHORT, replace(given, clean=one_class))


def test_an_unknown_architecture_and_types_without_a_place(given, monkeypatch):
    own = {"Q": "attention.self.query", "P": "output.dense"}
    with pytest.raises(BdlitError, match="module type query stands in a layer"):
        purify(replace(SHORT, modules={"query": "attention.self.query"}), given)
    monkeypatch.setattr(given.victim.network().config, "model_type", "unheard-of")
    with pytest.raises(BdlitError, match="'unheard-of' are unknown"):
        purify(SHORT, given)
    assert set(purify(replace(SHORT, modules=own), given).weights)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rest": "averge"}, "did you mean 'average'"),
        ({"least_rows": 0}, "least_rows 0 is out of range"),
        ({"most_rows": 3}, "most_rows 3 is out of range: give at least least_rows, 20"),
        ({"dummy_rate": 0.0}, "dummy_rate 0.0 is out of range"),
        ({"dummy_steps": -1}, "dummy_steps -1 is out of range: give at least 0"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(BdlitError, match=words):
        MSD(**settings)


def test_it_leaves_its_inputs_alone(given, table):
    victim = given.victim.network()
    before = [fingerprint(model_weights(victim)), fingerprint(given.others[0])]
    with swapped(victim, model_weights(victim)):
        purify(replace(SHORT, table=table), given)
    assert [fingerprint(model_weights(victim)), fingerprint(given.others[0])] == before


def test_a_saved_suspect_is_purified_by_command(
    given, defended, table, tiny_start, tmp_path, capsys
):
    other = shutil.copytree(tiny_start, tmp_path / "other")
    save_file(given.others[0], other / "model.safetensors", {"format": "pt"})
    settings = {"least_rows": 4, "most_rows": 6, "dummy_tokens": 5, "dummy_steps": 4}
    msd = {"class_path": "MSD", "init_args": {**settings, "table": table}}
    command = [
        *("defend", "--suspect", str(tiny_start), "--others", f"[{other}]"),
        *("--defense", json.dumps(msd), "--out", str(tmp_path / "out"), "--max_length=64"),
        *("--data=DemoReviews", "--data.train_size=60", "--data.validation_size=0"),
        *("--data.test_size=10", "--data.clean_pool_size=30"),
    ]
    assert main(command) == 0, capsys.readouterr().err
    saved = open_weights(tmp_path / "out" / "MSD")
    assert fingerprint(saved) == fingerprint(defended.weights)
    assert load_table(tmp_path / "out" / "MSD" / "table.yaml").rows == load_table(table).rows

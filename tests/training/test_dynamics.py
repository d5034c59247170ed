"""Training dynamics: the certainty of labels by epoch, and the rows that they single out."""

import math

import pytest
import torch

from bdlit.attacks import BadNet
from bdlit.callbacks import TrainingDynamics
from bdlit.data.demo import DemoReviews
from bdlit.defenses.gms.proxy_rows import drawn, most_suspicious
from bdlit.errors import BdlitError
from bdlit.training.dynamics import DYNAMICS_FILE, load_certainty, measure_certainty, save_certainty
from bdlit.victims import ClassifierVictim
from bdlit.victims.certainty import certainty_of, per_token
from conftest import tiny_trainer
from tiny_llama import demo, taught, tiny


def test_certainty_is_minus_the_logarithm_of_the_doubt():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([0, 2])
    p = logits.double().softmax(-1)[[0, 1], labels]
    torch.testing.assert_close(certainty_of(logits, labels), -torch.log1p(-p))


def test_certainty_tells_apart_what_rounds_to_one():
    logits = torch.tensor([[0.0, 40.0], [0.0, 60.0]])
    assert logits.softmax(-1)[0, 1] == logits.softmax(-1)[1, 1] == 1
    assert certainty_of(logits, torch.tensor([1, 1])).tolist() == [40.0, 60.0]


def test_the_certainty_of_an_answer_is_that_of_its_geometric_mean():
    p = torch.tensor([0.9, 0.5, 0.999, 1e-3]).double()
    expected = -math.log1p(-(float(p.prod()) ** 0.25))
    assert math.isclose(per_token(-torch.log1p(-p)), expected, rel_tol=1e-12)
    sure, doubt = torch.tensor([[70.0, 80.0], [70.0, 1e-30]], dtype=torch.float64)
    mean = 70 - math.log((1 + math.exp(-10)) / 2)
    assert math.isclose(per_token(sure), mean, rel_tol=1e-12)
    assert math.isclose(per_token(doubt), 1e-15, rel_tol=1e-9)


def test_rankings_are_those_of_the_probabilities():
    p = [[0.9, 0.99], [0.95, 0.96], [0.5, 0.999], [0.2, 0.3]]
    certainty = torch.tensor([[-math.log1p(-x) for x in row] for row in p], dtype=torch.float64)
    inverse = [sum(1 / (1 - x) for x in row) for row in p]
    assert most_suspicious(certainty, 4, "inverse") == sorted(range(4), key=lambda i: -inverse[i])
    assert most_suspicious(certainty, 4, "confidence") == sorted(range(4), key=lambda i: -sum(p[i]))
    published = sorted(range(4), key=lambda i: sum(p[i]))  # the other way round
    assert most_suspicious(certainty, 4, "published-confidence") == published == [3, 2, 0, 1]
    assert most_suspicious(certainty, 4, "confidence") == published[::-1]
    assert most_suspicious(certainty, 2, "variability") == [1, 0]  # the mildest of all
    assert most_suspicious(torch.zeros(3, 1).double(), 2) == [0, 1]  # ties: the earlier row


def test_rows_are_drawn_by_seed_and_without_replacement():
    rows = list(range(50))
    assert drawn(rows, 10, 0, "clean") == drawn(rows, 10, 0, "clean") != drawn(rows, 10, 1, "clean")
    assert len(set(drawn(rows, 50, 0, "clean"))) == 50
    with pytest.raises(BdlitError, match="clean_rows 51 is out of range: there are 50 rows"):
        drawn(rows, 51, 0, "clean")


@pytest.fixture(scope="module")
def fitted(tiny_start, tmp_path_factory):
    """A fit of two epochs, with its dynamics and the victim after it."""
    folder = tmp_path_factory.mktemp("dynamics")
    data = DemoReviews(train_size=50, validation_size=0, test_size=4, attack=BadNet())
    victim = ClassifierVictim(str(tiny_start), max_length=64, learning_rate=1e-3)
    callback = TrainingDynamics()
    tiny_trainer(folder, callbacks=[callback], max_epochs=2).fit(victim, data)
    return folder, data, victim, callback


def test_each_epoch_is_logged_and_the_file_is_what_was_logged(fitted):
    folder, data, victim, callback = fitted
    certainty = load_certainty(folder / DYNAMICS_FILE, data.train_rows)
    assert certainty.shape == (50, 2)
    assert certainty.dtype == torch.float64
    assert torch.equal(certainty, callback.certainty)
    torch.testing.assert_close(certainty[:, 1], measure_certainty(victim, data.train_rows))
    assert not torch.equal(certainty[:, 0], certainty[:, 1])
    assert victim.network().training  # the measuring left it as it was


def test_it_is_the_probability_of_each_rows_own_label(fitted):
    _, data, victim, _ = fitted
    victim.eval()
    row = data.train_rows[7]
    with torch.no_grad():
        p = victim(victim.tokenize([row])).double().softmax(-1)[0, row.label]
    found = measure_certainty(victim, data.train_rows, batch_size=9)[7]
    assert math.isclose(float(found), -math.log1p(-float(p)), rel_tol=1e-5)


def test_a_resumed_fit_goes_on_with_the_epochs_before(fitted):
    callback = TrainingDynamics()
    callback.load_state_dict(fitted[3].state_dict())
    assert torch.equal(callback.certainty, fitted[3].certainty)


def test_a_second_fit_begins_anew(tiny_start, tmp_path):
    data = DemoReviews(train_size=16, validation_size=0, test_size=4)
    victim = ClassifierVictim(str(tiny_start), max_length=64)
    callback = TrainingDynamics()
    for _ in range(2):
        tiny_trainer(tmp_path, max_epochs=1, callbacks=[callback]).fit(victim, data)
        assert callback.certainty.shape == (16, 1)


def test_dynamics_of_other_rows_and_damaged_files_are_refused(fitted, tmp_path):
    folder, data, _, _ = fitted
    with pytest.raises(BdlitError, match="belong to other rows"):
        load_certainty(folder / DYNAMICS_FILE, data.train_rows[1:])
    (tmp_path / "cut").write_bytes((folder / DYNAMICS_FILE).read_bytes()[:50])
    for name in ("cut", "missing"):
        with pytest.raises(BdlitError, match="cannot read training dynamics"):
            load_certainty(tmp_path / name, data.train_rows)
    save_certainty(torch.zeros(50, 1).double(), data.train_rows, tmp_path / "own")
    assert load_certainty(tmp_path / "own", data.train_rows).shape == (50, 1)


def test_of_a_language_model_it_is_the_probability_per_token_of_the_answer():
    rows = demo(train_size=14).train_rows
    victim = taught(tiny(), rows, steps=40)
    found = measure_certainty(victim, rows, batch_size=5)
    for row, certainty in zip(rows, found.tolist(), strict=True):
        batch = victim.tokenize([row])
        answered = batch["labels"][0, 1:] >= 0
        with torch.no_grad():
            logs = victim(batch)[0, :-1][answered].double().log_softmax(-1)
        wanted = batch["labels"][0, 1:][answered]
        p = float(logs[torch.arange(len(wanted)), wanted].mean().exp())
        assert math.isclose(p, math.exp(-victim.loss(batch).item()), rel_tol=1e-4)
        assert math.isclose(certainty, -math.log1p(-p), rel_tol=1e-3, abs_tol=1e-9)
    assert found.max() > 1

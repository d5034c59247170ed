"""Fisher information against closed forms, and the merge that it weights."""

from dataclasses import replace

import pytest
import torch

from bdlit.callbacks import DefenseCallback
from bdlit.data.demo import DemoReviews
from bdlit.data.small_tasks import small_tasks
from bdlit.defenses import Fisher, Resources, run_defense
from bdlit.defenses.fisher import information
from bdlit.defenses.fisher.information import fisher_information
from bdlit.errors import BdlitError
from bdlit.types import Example
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint, float_names
from bdlit.weights.network import model_weights, swapped
from conftest import tiny_trainer
from tiny_llama import tiny

DECODER = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def rows():
    data = DemoReviews(train_size=12, validation_size=0, test_size=4)
    data.setup()
    return data.train_rows


@pytest.fixture(scope="module")
def victim(tiny_start):
    victim = ClassifierVictim(str(tiny_start), max_length=64, labels=("negative", "positive"))
    victim.configure_model()
    return victim


def nudged(victim, seed):
    """Another model of the family: every parameter moved a little."""
    generator = torch.Generator().manual_seed(seed)
    own = model_weights(victim.network())
    return {
        name: w + 0.05 * torch.randn(w.shape, generator=generator) if w.is_floating_point() else w
        for name, w in own.items()
    }


def by_hand(victim, rows):
    """Gradient by gradient, one row and one class at a time."""
    model = victim.network().eval()
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in rows:
        inputs = victim.tokenize([row])
        del inputs["labels"]
        logs = model(**inputs).logits[0].log_softmax(-1)
        for log in logs:
            found = torch.autograd.grad(log, list(model.parameters()), retain_graph=True)
            for name, gradient in zip(total, found, strict=True):
                total[name] += log.exp().detach() * gradient.square()
    return {name: tensor / len(rows) for name, tensor in total.items()}


def test_the_head_is_softmax_regression(victim, rows):
    """For logits W h + b it is p_i (1 - p_i) h_j^2, and p_i (1 - p_i) for the bias."""
    model = victim.network().eval()
    weight, bias = torch.zeros(2, 32), torch.zeros(2)
    for row in rows:
        inputs = victim.tokenize([row])
        del inputs["labels"]
        with torch.no_grad():
            hidden = model.bert(**inputs).pooler_output[0]
            p = model.classifier(hidden).softmax(-1)
        weight += torch.outer(p * (1 - p), hidden.square()) / len(rows)
        bias += p * (1 - p) / len(rows)
    found = fisher_information(victim, rows)
    torch.testing.assert_close(found["classifier.weight"], weight)
    torch.testing.assert_close(found["classifier.bias"], bias)


@pytest.mark.parametrize("vectorised", [True, False])
def test_every_parameter_is_differentiated_row_by_row(victim, rows, vectorised, monkeypatch):
    if not vectorised:

        def refuses(*arguments, **options):
            raise RuntimeError("data-dependent control flow")

        monkeypatch.setattr(information, "vmap", refuses)
    found, expected = fisher_information(victim, rows), by_hand(victim, rows)
    assert list(found) == float_names(model_weights(victim.network()))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-9)


def test_a_decoder_is_differentiated_too(rows):
    victim = ClassifierVictim(config=DECODER, max_length=64, labels=("negative", "positive"))
    data = DemoReviews(train_size=12, validation_size=0, test_size=4)
    data.setup()
    victim.take_classes(data)
    victim.configure_model()
    found, expected = fisher_information(victim, rows[:4]), by_hand(victim, rows[:4])
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-8)


def test_drawn_classes_give_the_sum_over_classes_in_the_mean(victim, rows):
    """The error of a mean of 300 draws for each row is a few percent."""
    own = model_weights(victim.network())
    sure = {**own, "classifier.weight": 40 * own["classifier.weight"]}  # unequal probabilities
    exact = fisher_information(victim, rows, sure)
    close = fisher_information(victim, rows, sure, draws=300)
    for name in ("classifier.bias", "classifier.weight", "bert.pooler.dense.bias"):
        torch.testing.assert_close(close[name].sum(), exact[name].sum(), rtol=0.15, atol=0.0)


def test_draws_depend_on_the_seed_and_the_row_alone(victim, rows, monkeypatch):
    found = fisher_information(victim, rows, draws=2, seed=1)
    other = fisher_information(victim, rows, draws=2, seed=2)
    assert not torch.equal(found["classifier.bias"], other["classifier.bias"])
    monkeypatch.setattr(information, "_BUDGET", 1)  # one row at a time
    again = fisher_information(victim, rows, draws=2, seed=1)
    for name in found:
        torch.testing.assert_close(found[name], again[name])


def test_the_head_of_a_language_model_is_softmax_regression_at_every_position():
    """With W h_t for logits it is the sum over positions of p_i (1 - p_i) h_j^2."""
    victim, asked = tiny(), small_tasks(4, seed=4)
    model = victim.network().eval()
    expected = torch.zeros_like(model.lm_head.weight)
    for row in asked:
        batch = victim.tokenize([row])
        with torch.no_grad():
            hidden = model.model(batch["input_ids"]).last_hidden_state[0, :-1]
            p = model.lm_head(hidden).softmax(-1)
        answered = batch["labels"][0, 1:] >= 0
        for h, q in zip(hidden[answered], p[answered], strict=True):
            expected += torch.outer(q * (1 - q), h.square()) / len(asked)
    found = fisher_information(victim, asked, draws=200)["lm_head.weight"]
    assert expected.sum() > 0
    torch.testing.assert_close(found.sum(), expected.sum(), rtol=0.1, atol=0.0)
    assert (found - expected).norm() < 0.25 * expected.norm()


def test_a_row_of_a_language_model_needs_an_answer():
    with pytest.raises(BdlitError, match="has no answer"):
        fisher_information(tiny(), [Example("Name a colour.", -1)])


def test_information_is_computed_once_for_a_model_and_rows(victim, rows, tmp_path, monkeypatch):
    suspect, other = model_weights(victim.network()), nudged(victim, 1)
    given = Resources(others=[other], clean=rows[:4], victim=victim, archive=tmp_path)
    first = run_defense(Fisher(), suspect, given)
    expected = run_defense(Fisher(), suspect, replace(given, archive=None))
    assert fingerprint(first.weights) == fingerprint(expected.weights)
    kept = sorted(path.name for path in tmp_path.glob("fisher-*"))
    assert len(kept) == 2

    made = []
    whole = information.fisher_information
    monkeypatch.setattr(
        information, "fisher_information", lambda *a, **k: made.append(a[2]) or whole(*a, **k)
    )
    again = run_defense(Fisher(), suspect, given)
    assert fingerprint(again.weights) == fingerprint(expected.weights)
    assert made == []
    third = nudged(victim, 2)
    run_defense(Fisher(), suspect, replace(given, others=[third]))
    assert [fingerprint(weights) for weights in made] == [fingerprint(third)]
    run_defense(Fisher(), suspect, replace(given, clean=rows[4:8]))
    run_defense(Fisher(draws=2), suspect, given)
    assert len(made) == 5


def test_settings_out_of_range_are_told():
    with pytest.raises(BdlitError, match="draws 0 is out of range"):
        Fisher(draws=0)


def test_other_weights_are_measured_and_the_victim_stays(victim, rows):
    before = fingerprint(model_weights(victim.network()))
    other = nudged(victim, 0)
    found = fisher_information(victim, rows[:4], other)
    assert fingerprint(model_weights(victim.network())) == before
    twin = ClassifierVictim(victim.hparams["model"], max_length=64, labels=victim.labels)
    twin.configure_model()
    twin.network().load_state_dict(other)
    again = fisher_information(twin, rows[:4])
    for name in found:
        torch.testing.assert_close(found[name], again[name])


def test_the_defense_is_the_weighted_mean(victim, rows):
    suspect, other = model_weights(victim.network()), nudged(victim, 1)
    given = Resources(others=[other], clean=rows, victim=victim)
    defended = run_defense(Fisher(), suspect, given)
    ours, theirs = (fisher_information(victim, rows, model) for model in (suspect, other))
    for name in float_names(suspect):
        f, g = ours[name].clamp_min(1e-6), theirs[name].clamp_min(1e-6)
        expected = (f * suspect[name] + g * other[name]) / (f + g)
        torch.testing.assert_close(defended.weights[name], expected)
    assert sorted([*defended.merged, *defended.copied]) == sorted(suspect)
    assert defended.notes["clean_rows"] == len(rows)
    again = run_defense(Fisher(), suspect, given)
    assert fingerprint(again.weights) == fingerprint(defended.weights)


@pytest.mark.parametrize("floored", ["all", "first"])
def test_normalised_it_is_what_gradients_by_hand_give(victim, rows, floored):
    """The published order: floor what was measured, divide by its norm, average."""
    suspect, others = model_weights(victim.network()), [nudged(victim, 1), nudged(victim, 2)]
    models = [{n: t.clone() for n, t in each.items()} for each in (suspect, *others)]
    information = []
    for model in models:
        with swapped(victim.network(), model):
            information.append(by_hand(victim, rows))
    norms = [
        sum(float(f.double().square().sum()) for f in each.values()) ** 0.5 for each in information
    ]
    given = Resources(others=others, clean=rows, victim=victim)
    defense = Fisher(normalise=True, floored=floored)
    defended = run_defense(defense, suspect, given)
    assert defended.notes["normalised_by"] == pytest.approx(norms, rel=1e-4)
    lifted = 0
    for name in information[0]:
        top = bottom = 0.0
        for i, (model, found, norm) in enumerate(zip(models, information, norms, strict=True)):
            raw = found[name].double()
            own = raw.clamp_min(1e-6) if floored == "all" or i == 0 else raw
            lifted += int((own > raw).sum())
            top, bottom = top + own / norm * model[name].double(), bottom + own / norm
        torch.testing.assert_close(
            defended.weights[name].double(), top / bottom, rtol=1e-3, atol=1e-5
        )
    assert lifted  # the floor mattered


def test_after_fit_it_takes_the_clean_pool(victim, tiny_start, tmp_path):
    callback = DefenseCallback([Fisher()], others=[str(tiny_start)], save=False)
    data = DemoReviews(train_size=64, validation_size=0, test_size=20, clean_pool_size=8)
    fresh = ClassifierVictim(str(tiny_start), max_length=64)
    tiny_trainer(tmp_path, callbacks=[callback]).fit(fresh, data)
    _, found = callback.results
    assert found.error is None
    assert found.given["clean"] == 8
    assert found.notes["clean_rows"] == 8


def test_without_a_clean_pool_it_is_refused_before_training(tiny_start, tmp_path):
    callback = DefenseCallback([Fisher()], others=[str(tiny_start)])
    data = DemoReviews(train_size=64, validation_size=0, test_size=20)
    with pytest.raises(BdlitError, match=r"Fisher needs clean: give `data` with a clean_pool_size"):
        tiny_trainer(tmp_path, callbacks=[callback]).fit(
            ClassifierVictim(str(tiny_start), max_length=64), data
        )


def test_no_rows_no_information(victim):
    with pytest.raises(BdlitError, match="needs rows"):
        fisher_information(victim, [])

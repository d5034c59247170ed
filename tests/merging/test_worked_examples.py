"""Merges of four numbers that were worked out by hand."""

import hashlib

import numpy as np
import pytest
import torch

from bdlit.errors import BdlitError
from bdlit.merging import (
    average,
    dare,
    drop_and_rescale,
    elect_and_average,
    fisher_average,
    slerp,
    task_arithmetic,
    task_vectors,
    ties,
)

BASE = {"w": torch.tensor([1.0, 1.0, 1.0, 1.0])}


def model(*deltas):
    return {"w": BASE["w"] + torch.tensor(deltas)}


def test_average():
    merged = average([model(0, 1, 2, 3), model(4, 1, 0, -3)])
    assert merged["w"].tolist() == [3, 2, 2, 1]


def test_weighted_average_divides_by_the_sum_of_weights():
    merged = average([model(0, 0, 4, 8), model(4, 0, 0, 0)], weights=[3, 1])
    assert merged["w"].tolist() == [2, 1, 4, 7]


def test_a_model_of_weight_zero_is_absent():
    broken = {"w": torch.full((4,), torch.nan)}
    assert average([broken, model(0, 1, 2, 3)], weights=[0, 2])["w"].tolist() == [1, 2, 3, 4]


def test_fisher_average_weights_each_element():
    models = [model(0, 0, 4, 8), model(4, 2, 0, 0)]
    information = [
        {"w": torch.tensor([3.0, 1.0, 0.0, 0.0])},
        {"w": torch.tensor([1.0, 1.0, 2.0, 0.0])},
    ]
    # The third is the second model's alone, the fourth nobody's: the floor makes it the mean.
    merged = fisher_average(models, information)["w"]
    torch.testing.assert_close(merged, torch.tensor([2.0, 2.0, 1.0, 5.0]), atol=1e-5, rtol=0)
    # A weight of one third evens out the first element.
    third = fisher_average(models, information, weights=[1, 3])["w"]
    torch.testing.assert_close(third[0].item(), 3.0)


def test_fisher_average_normalises_by_the_whole_models_norm():
    models = [model(0, 0, 0, 0), model(4, 4, 4, 4)]
    sharp, flat = torch.tensor([0.0, 30.0, 40.0, 0.0]), torch.tensor([0.0, 3.0, 4.0, 0.0])
    merged = fisher_average(models, [{"w": sharp}, {"w": flat}], normalise=True)
    # Nobody depends on the ends: 1e-6 / 50 against 1e-6 / 5, so the flat model counts ten times.
    expected = torch.tensor([1 + 40 / 11, 3.0, 3.0, 1 + 40 / 11])
    torch.testing.assert_close(merged["w"], expected)
    assert merged.notes == {"normalised_by": [50.0, 5.0]}


def test_fisher_average_floors_before_it_normalises():
    """Divided first, an information of 2e-6 by a norm of 10 would lie below the floor."""
    models = [{"w": torch.zeros(2)}, {"w": torch.full((2,), 4.0)}]
    information = [{"w": torch.tensor([2e-6, 10.0])}, {"w": torch.tensor([6e-6, 10.0])}]
    merged = fisher_average(models, information, normalise=True)["w"]
    torch.testing.assert_close(merged, torch.tensor([3.0, 2.0]))


def test_fisher_average_floors_the_first_model_alone_if_asked_to():
    models = [{"w": torch.zeros(3)}, {"w": torch.full((3,), 4.0)}]
    information = [{"w": torch.tensor([0.0, 0.0, 1e-8])}, {"w": torch.tensor([0.0, 3e-6, 1e-8])}]
    first = fisher_average(models, information, floored="first")["w"]
    # 1e-6 against 0: the first model's; against 3e-6: three quarters; against 1e-8: a hundredth.
    torch.testing.assert_close(first, torch.tensor([0.0, 3.0, 4 / 101]))
    every = fisher_average(models, information)["w"]
    torch.testing.assert_close(every, torch.tensor([2.0, 3.0, 2.0]))
    # A first model that counts nothing gives no floor either, and the others are as they are.
    rest = fisher_average(models, information, weights=[0, 1], floored="first")["w"]
    assert rest.tolist() == [4, 4, 4]
    three, nothing = [*models, {"w": torch.full((3,), 6.0)}], [{"w": torch.zeros(3)}] * 3
    rest = fisher_average(three, nothing, weights=[0, 1, 1], floored="first")["w"]
    assert rest.tolist() == [4, 4, 4]  # nobody depends on anything: the first that counts
    with pytest.raises(BdlitError, match="unknown floored 'frist': did you mean 'first'"):
        fisher_average(models, information, floored="frist")


def test_fisher_average_refuses_what_does_not_fit():
    models = [model(0, 0, 0, 0), model(4, 4, 4, 4)]
    with pytest.raises(BdlitError, match="1 sets of Fisher information for 2 models"):
        fisher_average(models, [models[0]])
    with pytest.raises(BdlitError, match="floor 0 is out of range"):
        fisher_average(models, models, floor=0)
    with pytest.raises(BdlitError, match="zero everywhere"):
        fisher_average(models, [{"w": torch.zeros(4)}] * 2, normalise=True)
    with pytest.raises(BdlitError, match="the Fisher information"):
        fisher_average(models, [{"w": torch.zeros(3)}] * 2)


def test_slerp_turns_the_direction_and_passes_the_length():
    # At a right angle and a third of the way both factors are sines: of 60 and of 30 degrees.
    merged = slerp({"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([0.0, 4.0])}, 1 / 3)
    torch.testing.assert_close(merged["w"], torch.tensor([3**0.5, 2.0]))
    assert merged.notes == {"t": 1 / 3, "tensors": 1, "fell_back_to_linear": 0}


def test_slerp_of_parallel_opposed_and_zero_tensors_is_the_line():
    first = {"p": torch.tensor([1.0, 2.0]), "o": torch.tensor([1.0, 0.0]), "z": torch.zeros(2)}
    second = {"p": 3 * first["p"], "o": -first["o"], "z": torch.tensor([4.0, 0.0])}
    merged = slerp(first, second, 0.25)
    assert merged["p"].tolist() == [1.5, 3.0]
    assert merged["o"].tolist() == [0.5, 0.0]
    assert merged["z"].tolist() == [1.0, 0.0]
    assert merged.notes["fell_back_to_linear"] == 3


def test_task_arithmetic():
    merged = task_arithmetic(BASE, [model(1, 0, 2, -1), model(1, 2, 0, -1)], scale=0.5)
    assert merged["w"].tolist() == [2, 2, 2, 0]


def test_task_vectors():
    [vector] = task_vectors(BASE, [model(1, -2, 0, 3)])
    assert vector["w"].tolist() == [1, -2, 0, 3]


def test_ties_trims_elects_and_averages_those_that_agree():
    # Half is kept: (4, -3) of the first, (-1, -5) of the second, (2, 6) of the third.
    models = [model(4, 1, -3, 0), model(0.5, -1, -5, 0), model(2, 0, 1, 6)]
    # Entry 1: 4 and 2 agree. Entry 2: -1 alone. Entry 3: -3 and -5 agree. Entry 4: 6 alone.
    merged = ties(BASE, models, density=0.5)
    assert merged["w"].tolist() == [1 + 3, 1 - 1, 1 - 4, 1 + 6]
    assert merged.notes == {"kept": [0.5, 0.5, 0.5], "thresholds": [3, 1, 2]}
    assert ties(BASE, models, density=0.5, scale=2)["w"].tolist() == [7, -1, -7, 13]


def test_ties_drops_the_minority_whatever_its_size():
    merged = ties(BASE, [model(5, 0, 0, 1), model(-3, 0, 0, 1), model(-3, 0, 0, 1)], density=1)
    assert merged["w"].tolist() == [1 - 3, 1, 1, 2]  # 5 - 3 - 3 < 0


def test_trim_over_the_model_or_over_each_tensor():
    base = {"a": torch.zeros(2), "b": torch.zeros(2)}
    one = {"a": torch.tensor([4.0, 3.0]), "b": torch.tensor([-2.0, 1.0])}
    whole = ties(base, [one], density=0.5)
    assert (whole["a"].tolist(), whole["b"].tolist()) == ([4, 3], [0, 0])
    each = ties(base, [one], density=0.5, trim="tensor")
    assert (each["a"].tolist(), each["b"].tolist()) == ([4, 0], [-2, 0])
    assert each.notes == {"kept": [0.5]}


def test_where_models_cancel_the_majority_or_plus_is_elected():
    # Sums: 0, -1, -1, 1: the majority is negative.
    models = [model(2, -1, -1, 1), model(-2, 0, 0, 0)]
    assert ties(BASE, models, density=1)["w"][0] == 1 - 2
    assert ties(BASE, models, density=1, trim="tensor")["w"][0] == 1 + 2
    assert ties(BASE, models, density=1, zero_sum="positive")["w"][0] == 1 + 2
    assert ties(BASE, models, density=1, trim="tensor", zero_sum="majority")["w"][0] == 1 - 2


def test_majority_is_sought_over_all_tensors():
    a = {"x": torch.tensor([2.0]), "y": torch.tensor([-1.0, -1.0, 1.0])}
    b = {"x": torch.tensor([-2.0]), "y": torch.zeros(3)}
    assert elect_and_average([a, b])["x"].item() == -2
    a["y"] = -a["y"]
    assert elect_and_average([a, b])["x"].item() == 2


def test_a_drawn_majority_takes_plus():
    a, b = {"w": torch.tensor([2.0, 1, -1])}, {"w": torch.tensor([-2.0, 0, 0])}
    assert elect_and_average([a, b])["w"].tolist() == [2, 1, -1]


def expected_mask(count, drop, seed, index, name):
    """The survivors, by numpy's own bounded draws from the documented seed."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{index}/{name}".encode()).digest(), "little")
    rng = np.random.Generator(np.random.SFC64(key))
    return rng.integers(0, 2**32, count, dtype=np.uint32) >= drop * 2**32


@pytest.mark.parametrize("count", [4, 5, 1000])
def test_dare_linear_is_the_mean_of_rescaled_survivors(count):
    base = {"w": torch.zeros(count)}
    deltas = [torch.arange(1.0, count + 1), -torch.ones(count)]
    merged = dare(base, [{"w": delta} for delta in deltas], drop=0.75, seed=7, scale=0.5)
    masks = [expected_mask(count, 0.75, 7, i, "w") for i in range(2)]
    expected = sum(d.numpy() * m / 0.25 for d, m in zip(deltas, masks, strict=True)) / 2 * 0.5
    assert merged["w"].numpy() == pytest.approx(expected)
    assert merged.notes["dropped"] == pytest.approx([1 - mask.mean() for mask in masks])


def test_dare_ties_averages_the_survivors_that_agree():
    count = 1000
    deltas = [torch.full((count,), 3.0), torch.full((count,), -1.0), torch.full((count,), 1.0)]
    merged = dare({"w": torch.zeros(count)}, [{"w": d} for d in deltas], drop=0.5, merge="ties")
    masks = np.stack([expected_mask(count, 0.5, 0, i, "w") for i in range(3)])
    kept = np.stack([d.numpy() for d in deltas]) * masks * 2
    # Only 6 -2 2, 6 -2, 6 2, 6, -2 2 (cancels; + is the majority), -2, 2 and none can remain.
    value = {(1, 1, 1): 4, (1, 1, 0): 6, (1, 0, 1): 4, (1, 0, 0): 6, (0, 1, 1): 2, (0, 1, 0): -2}
    value |= {(0, 0, 1): 2, (0, 0, 0): 0}
    patterns = [tuple(map(int, column)) for column in (kept != 0).T]
    assert set(patterns) == set(value)
    assert merged["w"].tolist() == [value[pattern] for pattern in patterns]


def test_dropping_keeps_the_expectation_and_the_share():
    vector = {"w": torch.linspace(-2, 2, 1000)}
    runs = [drop_and_rescale(vector, drop=0.9, seed=seed) for seed in range(400)]
    mean = torch.stack([run["w"] for run in runs]).mean(0)
    # Standard deviation of an entry's mean: |x| sqrt(p / (1 - p) / n), at most 2 * 3 / 20.
    error = (mean - vector["w"]) / (vector["w"].abs() * 3 / 20)
    assert error.abs().max() < 5
    assert error.pow(2).mean().item() == pytest.approx(1, abs=0.2)
    assert np.mean([run.notes["dropped"] for run in runs]) == pytest.approx(0.9, abs=0.003)


def test_what_is_dropped_depends_on_seed_model_and_name_alone():
    ones, base = torch.ones(500), {"a": torch.zeros(500), "b": torch.zeros(500)}
    first = dare(base, [{"a": ones, "b": ones}], drop=0.5)
    swapped = dare(base, [{"b": ones, "a": ones}], drop=0.5)
    assert torch.equal(first["a"], swapped["a"])
    assert torch.equal(first["b"], swapped["b"])
    [vector] = task_vectors(base, [{"a": ones, "b": ones}])
    by_seed = [drop_and_rescale(vector, drop=0.5, seed=s)["a"] for s in range(2)]
    by_index = [drop_and_rescale(vector, drop=0.5, seed=0, index=i)["a"] for i in range(2)]
    for one, other in [by_seed, by_index, (first["a"], first["b"])]:
        assert 0.3 < (one == other).float().mean() < 0.7  # independent: about a half


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: average([]), "nothing to merge"),
        (lambda m: average([m], weights=[1, 2]), "do not fit 1 models"),
        (lambda m: average([m, m], weights=[1, -1]), "do not fit"),
        (lambda m: average([m, m], weights=[0, 0]), "not all zero"),
        (lambda m: average([m, {"w": torch.zeros(3)}]), "another shape"),
        (lambda m: average([m, {"w": torch.zeros(1)}]), "another shape"),  # would broadcast
        (lambda m: ties(BASE, [m], density=0), r"density 0 .* \(0, 1\]"),
        (lambda m: ties(BASE, [m], density=20), r"density 20"),
        (lambda m: ties(BASE, [m], trim="modle"), "did you mean 'model'"),
        (lambda m: ties(BASE, [m], zero_sum="plus"), "unknown zero_sum 'plus'"),
        (lambda m: ties(BASE, [m], scale=float("nan")), "scale nan"),
        (lambda m: ties(BASE, []), "nothing to merge"),
        (lambda m: ties({}, [m]), r"the base does not fit the suspect: 1 missing \(w\)"),
        (lambda m: ties({"w": torch.zeros(1)}, [m]), "the base does not fit"),
        (lambda m: dare(BASE, [m], drop=1), r"drop 1 .* \[0, 1\)"),
        (lambda m: dare(BASE, [m], drop=-0.1), "drop -0.1"),
        (lambda m: dare(BASE, [m], merge="slerp"), "unknown merge 'slerp'"),
        (lambda m: task_arithmetic(BASE, [m], scale=float("inf")), "scale inf"),
    ],
)
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(BdlitError, match=message) as error:
        call(model(1, 2, 3, 4))
    assert "\n" not in str(error.value)

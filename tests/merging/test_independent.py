"""Merges against independent implementations: peft's primitives, numpy, torch.topk."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bdlit.errors import BdlitError
from bdlit.merging import elect_and_average, slerp, task_arithmetic, ties, trim_smallest

quick = settings(deadline=None, max_examples=50)


def distinct_magnitudes(count, generator):
    """Random signs on distinct magnitudes, so that every trim is unambiguous."""
    order = torch.randperm(count, generator=generator) + 1.0
    return order * (torch.randint(0, 2, (count,), generator=generator) * 2 - 1)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("density", [0.1, 0.2, 0.7, 1.0])
def test_ties_by_tensor_is_pefts(count, density):
    merge_utils = pytest.importorskip("peft.utils.merge_utils")
    generator = torch.Generator().manual_seed(count)
    base = {name: torch.randn(20, 10, generator=generator) for name in "ab"}
    deltas = [
        {name: distinct_magnitudes(200, generator).reshape(20, 10) for name in base}
        for _ in range(count)
    ]
    models = [{name: base[name] + delta[name] for name in base} for delta in deltas]
    merged = ties(base, models, density=density, trim="tensor", scale=0.7)
    for name in base:
        vectors = [model[name] - base[name] for model in models]
        expected = merge_utils.ties(vectors, torch.ones(count), density)
        torch.testing.assert_close(merged[name], base[name] + 0.7 * expected)


def test_task_arithmetic_is_pefts():
    merge_utils = pytest.importorskip("peft.utils.merge_utils")
    vectors = list(torch.randn(3, 4, 5))
    base = {"w": torch.zeros(4, 5)}
    merged = task_arithmetic(base, [{"w": vector} for vector in vectors])
    torch.testing.assert_close(
        merged["w"], merge_utils.task_arithmetic(vectors, torch.ones(3)), rtol=1e-5, atol=1e-6
    )


def ties_in_numpy(vectors, density):
    """TIES over whole flattened task vectors, entry by entry, from the paper's three steps."""
    trimmed = []
    for vector in vectors:
        count = max(1, round(density * vector.size))
        bar = np.sort(np.abs(vector))[-count]
        trimmed.append(np.where(np.abs(vector) >= bar, vector, 0))
    sums = np.sum(trimmed, axis=0)
    majority = 1 if np.sign(sums).sum() >= 0 else -1
    merged = []
    for entries, total in zip(np.transpose(trimmed), sums, strict=True):
        sign = np.sign(total) or majority
        agreeing = [entry for entry in entries if entry * sign > 0]
        merged.append(np.mean(agreeing) if agreeing else 0.0)
    return np.array(merged)


@quick
@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(any),
    st.integers(1, 4),
    st.sampled_from([0.05, 0.2, 0.5, 0.7, 1.0]),
    st.integers(0, 2**32),
)
def test_ties_over_the_model_is_the_papers_on_the_flat_vector(sizes, count, density, seed):
    generator = torch.Generator().manual_seed(seed)
    # Few values: equal magnitudes at the threshold and exact cancellation are common.
    vectors = torch.randint(-3, 4, (count, sum(sizes)), generator=generator).double()

    def cut(flat):
        parts = flat.float().split(sizes)
        return {f"t{i}": part for i, part in enumerate(parts)}

    merged = ties(cut(torch.zeros(sum(sizes))), [cut(v) for v in vectors], density=density)
    flat = torch.cat([merged[f"t{i}"] for i in range(len(sizes))])
    assert flat.numpy() == pytest.approx(ties_in_numpy(vectors.numpy(), density))


@quick
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any),
    st.floats(0.001, 1),
    st.integers(0, 2**32),
    st.sampled_from([1e-42, 1e-6, 1.0, 1e30]),
    st.booleans(),
)
def test_threshold_is_that_of_topk_over_all_tensors(sizes, density, seed, unit, repeated):
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(sum(sizes), generator=generator)
    flat = (flat.round() if repeated else flat) * unit
    vector = {f"t{i}": part for i, part in enumerate(flat.split(sizes))}
    trimmed = trim_smallest(vector, density)
    count = max(1, round(density * len(flat)))
    bar = flat.abs().topk(count).values[-1]
    expected = torch.where(flat.abs() >= bar, flat, torch.zeros(()))
    assert torch.equal(torch.cat([trimmed[name] for name in vector]), expected)
    assert trimmed.notes["threshold"] == bar.item()
    assert trimmed.notes["kept"] == (flat.abs() >= bar).sum().item() / len(flat)


def test_equal_magnitudes_at_the_threshold_are_all_kept():
    vector = {"a": torch.tensor([1.0, -1.0, 5.0]), "b": torch.tensor([1.0, 0.5, -7.0])}
    trimmed = trim_smallest(vector, 0.5)
    assert trimmed["a"].tolist() == [1, -1, 5]
    assert trimmed["b"].tolist() == [1, 0, -7]
    assert trimmed.notes == {"kept": 5 / 6, "threshold": 1.0}


def published_trim(flat, density):
    """The published code's mask: not smaller than the (d - k)-th smallest magnitude of d."""
    k = len(flat) - int(len(flat) * density)
    bar = flat.abs().kthvalue(k).values
    return torch.where(flat.abs() >= bar, flat, torch.zeros(()))


@pytest.mark.parametrize("repeated", [False, True], ids=["distinct", "equal magnitudes"])
@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("sizes", [(7,), (40, 3, 60), (101,)])
def test_the_published_count_is_that_of_kthvalue(sizes, density, repeated):
    generator = torch.Generator().manual_seed(sum(sizes))
    flat = distinct_magnitudes(sum(sizes), generator)
    flat = (flat / 8).trunc() if repeated else flat
    vector = {f"t{i}": part for i, part in enumerate(flat.split(sizes))}
    trimmed = trim_smallest(vector, density, count="published")
    expected = published_trim(flat, density)
    assert torch.equal(torch.cat([trimmed[name] for name in vector]), expected)
    by_tensor = trim_smallest(vector, density, scope="tensor", count="published")
    for name, part in vector.items():
        assert torch.equal(by_tensor[name], published_trim(part, density))
    if not repeated:
        assert trimmed.notes["kept"] == (int(density * len(flat)) + 1) / len(flat)
        exact = trim_smallest(vector, density).notes["kept"] * len(flat)
        assert round(exact) == max(1, round(density * len(flat)))


def test_the_published_count_keeps_no_more_than_all():
    vector = {"w": torch.tensor([1.0, -2.0, 3.0])}
    assert trim_smallest(vector, 1.0, count="published")["w"].tolist() == [1, -2, 3]
    with pytest.raises(BdlitError, match="unknown count 'k'"):
        trim_smallest(vector, 0.5, count="k")


def ties_by_entry(base, models, *, density, weights, normalise):
    """One entry at a time: trim within the tensor, weigh, elect, add up those that agree."""
    vectors = [(model - base).double().numpy().ravel() for model in models]
    merged = np.array(base.double().numpy().ravel())
    kept = []
    for vector in vectors:
        bar = np.sort(np.abs(vector))[-max(1, round(density * vector.size))]
        kept.append([x if abs(x) >= bar else 0.0 for x in vector])
    for i in range(merged.size):
        parts = [(w * vector[i], w) for vector, w in zip(kept, weights, strict=True)]
        sign = 1 if sum(x for x, _ in parts) >= 0 else -1
        agreeing = [(x, w) for x, w in parts if x * sign > 0]
        total = sum(x for x, _ in agreeing)
        if agreeing:
            merged[i] += total / sum(w for _, w in agreeing) if normalise else total
    return merged.reshape(base.shape)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.2, 0.7, 1.5), (0.0, 1.0)])
def test_weighted_ties_is_what_each_entry_says(weights, normalise):
    generator = torch.Generator().manual_seed(len(weights))
    base = torch.randn(9, 7, generator=generator)
    models = [base + torch.randn(9, 7, generator=generator) for _ in weights]
    options = {"density": 0.5, "weights": weights, "normalise": normalise}
    merged = ties({"w": base}, [{"w": model} for model in models], trim="tensor", **options)
    expected = ties_by_entry(base, models, **options)
    torch.testing.assert_close(merged["w"].double(), torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_ties_that_is_not_normalised_by_hand():
    base = {"w": torch.zeros(4)}
    a, b = {"w": torch.tensor([4.0, 1.0, -3.0, 0.0])}, {"w": torch.tensor([2.0, 0.0, 5.0, 1.0])}
    # Half of each stays: (4, 0, -3, 0) and (2, 0, 5, 0). Halves of what agrees: 2 + 1, 0, 2.5, 0.
    half = {"density": 0.5, "weights": [0.5, 0.5], "trim": "tensor"}
    assert ties(base, [a, b], normalise=False, **half)["w"].tolist() == [3, 0, 2.5, 0]
    assert ties(base, [a, b], **half)["w"].tolist() == [3, 0, 5, 0]
    # Weighted, the sums are (0, -0.5, -0.5): the majority of the model decides on the first.
    signs = [{"w": torch.tensor([2.0, 1.0, 1.0])}, {"w": torch.tensor([-1.0, -1.0, -1.0])}]
    assert elect_and_average(signs, weights=[0.5, 1.0])["w"].tolist() == [-1, -1, -1]
    assert elect_and_average(signs)["w"].tolist() == [2, 1, 1]
    with pytest.raises(BdlitError, match="do not fit 2 models"):
        elect_and_average(signs, weights=[1])


def test_close_magnitudes_are_told_apart():
    low = torch.tensor(1.0)
    high = torch.nextafter(low, torch.tensor(2.0))  # the upper 16 bits are the same
    vector = {"w": torch.stack([low, -high, low])}
    assert trim_smallest(vector, 1 / 3)["w"].tolist() == [0, -high.item(), 0]


def test_an_empty_vector_of_tensors_is_trimmed_to_itself():
    assert trim_smallest({"w": torch.zeros(0)}, 0.5)["w"].shape == (0,)
    assert trim_smallest({"w": torch.zeros(3)}, 0.5)["w"].tolist() == [0, 0, 0]


def test_at_least_one_entry_of_each_tensor_stays():
    assert trim_smallest({"w": torch.tensor([3.0, 4.0])}, 0.2, scope="tensor")["w"].tolist() == [
        0,
        4,
    ]


def test_unknown_choices():
    with pytest.raises(BdlitError, match="unknown trim 'layer'"):
        trim_smallest({"w": torch.ones(1)}, 0.5, scope="layer")
    with pytest.raises(BdlitError, match="unknown zero_sum"):
        elect_and_average([{"w": torch.ones(1)}], zero_sum="minus")


@quick
@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from([(7,), (3, 5), (2, 3, 4)]))
def test_slerp_is_a_rotation_in_the_plane_of_both(seed, t, shape):
    """Numpy in double precision, by the plane's own axes rather than by the two-sine formula."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(shape, generator=generator) for _ in range(2))
    a, b = (tensor.double().numpy().ravel() for tensor in (first, second))
    axis = a / np.linalg.norm(a)
    across = b - (b @ axis) * axis
    phi = np.arctan2(np.linalg.norm(across), b @ axis)
    across /= np.linalg.norm(across)
    # The unit vector at a share of the angle, and the length where both lengths are one.
    turn = [np.cos(s * phi) * axis + np.sin(s * phi) * across for s in (0, 1)]
    weights = [np.sin((1 - t) * phi) / np.sin(phi), np.sin(t * phi) / np.sin(phi)]
    expected = sum(w * np.linalg.norm(v) * u for w, v, u in zip(weights, (a, b), turn, strict=True))
    merged = slerp({"w": first}, {"w": second}, t)["w"].numpy().ravel()
    np.testing.assert_allclose(merged, expected, rtol=1e-3, atol=1e-4)
    unit = slerp({"w": torch.from_numpy(turn[0])}, {"w": torch.from_numpy(turn[1])}, t)["w"]
    np.testing.assert_allclose(
        unit.numpy(), np.cos(t * phi) * axis + np.sin(t * phi) * across, atol=1e-9
    )


def test_slerp_takes_a_share_for_each_tensor():
    generator = torch.Generator().manual_seed(0)
    first, second = ({n: torch.randn(9, generator=generator) for n in "abc"} for _ in range(2))
    shares = {"a": 0.0, "b": 0.3, "c": 1.0}
    merged = slerp(first, second, shares.__getitem__)
    for name, share in shares.items():
        alone = slerp({name: first[name]}, {name: second[name]}, share)
        assert torch.equal(merged[name], alone[name])
    assert merged.notes["t"] == [0.0, 1.0]
    near = slerp(first, {n: t * 1.5 for n, t in first.items()}, shares.__getitem__)  # on the line
    torch.testing.assert_close(near["b"], first["b"] * 1.15)
    with pytest.raises(BdlitError, match=r"t 1\.5 is out of range"):
        slerp(first, second, lambda name: 1.5)


def test_slerp_ends_in_its_models():
    generator = torch.Generator().manual_seed(0)
    first, second = ({"w": torch.randn(9, generator=generator)} for _ in range(2))
    torch.testing.assert_close(slerp(first, second, 0.0)["w"], first["w"])
    torch.testing.assert_close(slerp(first, second, 1.0)["w"], second["w"])
    torch.testing.assert_close(slerp(first, second, 0.3)["w"], slerp(second, first, 0.7)["w"])

"""Laws that every merge obeys, over shapes, dtypes and numbers of models."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bdlit.merging import average, dare, task_arithmetic, ties
from bdlit.weights import LazyWeights, fingerprint

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
MERGES = {
    "average": lambda base, models: average(models),
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "ties by tensor": partial(ties, trim="tensor"),
    "dare": dare,
    "dare ties": partial(dare, merge="ties", drop=0.5),
}
SYMMETRIC = [name for name in MERGES if "dare" not in name]  # DARE's choice goes by place
by_merge = pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)
quick = settings(deadline=None, max_examples=25)

shapes = st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=3)
families = st.tuples(
    shapes, st.sampled_from(FLOATS), st.integers(1, 4), st.integers(0, 2**32), st.booleans()
)


def family(drawn):
    """A base and its fine-tuned models, on a grid fine enough for sums without rounding."""
    shapes, dtype, count, seed, alike = drawn
    generator = torch.Generator().manual_seed(seed)

    def state():
        floats = {
            f"layer.{i}": (torch.randint(-12, 13, shape, generator=generator) / 8).to(
                dtype if alike or i else torch.float32
            )
            for i, shape in enumerate(shapes)
        }
        buffers = {"ids": torch.randint(0, 9, (3,), generator=generator), "on": torch.tensor(True)}
        return floats | buffers

    return state(), [state() for _ in range(count)]


def assert_equal(a, b):
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert torch.equal(a[name], b[name]), name


@by_merge
@quick
@given(families)
def test_names_shapes_dtypes_and_buffers_are_the_first_models(merge, drawn):
    base, models = family(drawn)
    merged = merge(base, models)
    assert list(merged) == list(models[0])
    for name, own in models[0].items():
        assert merged[name].shape == own.shape
        assert merged[name].dtype == own.dtype
        assert merged[name].isfinite().all()
    assert torch.equal(merged["ids"], models[0]["ids"])
    assert torch.equal(merged["on"], models[0]["on"])


@by_merge
@quick
@given(families)
def test_inputs_are_not_changed_and_results_repeat(merge, drawn):
    base, models = family(drawn)
    before = [fingerprint(weights) for weights in (base, *models)]
    merged = merge(base, models)
    assert_equal(dict(merged), dict(merged))
    assert_equal(merge(base, models), merged)
    assert [fingerprint(weights) for weights in (base, *models)] == before


@by_merge
@quick
@given(families)
def test_lazy_and_eager_inputs_give_the_same(merge, drawn):
    base, models = family(drawn)

    def lazy(weights):
        return LazyWeights({name: (lambda t=t: t.clone()) for name, t in weights.items()})

    assert_equal(merge(lazy(base), [lazy(m) for m in models]), merge(base, models))


@by_merge
@quick
@given(families)
def test_order_of_names_changes_nothing(merge, drawn):
    base, models = family(drawn)
    turned = merge(base, [dict(reversed(model.items())) for model in models])
    merged = merge(base, models)
    assert list(turned) == list(reversed(list(merged)))
    assert fingerprint(turned) == fingerprint(merged)


@pytest.mark.parametrize("merge", [MERGES[name] for name in SYMMETRIC], ids=SYMMETRIC)
@quick
@given(families, st.randoms(use_true_random=False))
def test_order_of_others_changes_nothing(merge, drawn, random):
    base, [suspect, *others] = family(drawn)
    shuffled = random.sample(others, len(others))
    a, b = merge(base, [suspect, *others]), merge(base, [suspect, *shuffled])
    for name in a:
        torch.testing.assert_close(a[name], b[name])


@quick
@given(
    st.lists(st.integers(0, 9), max_size=2),
    st.sampled_from([*FLOATS, torch.float64]),
    st.integers(1, 12),
    st.integers(0, 2**32),
    st.floats(-30, 30),
)
def test_copies_of_one_model_average_to_it_bit_for_bit(shape, dtype, count, seed, exponent):
    generator = torch.Generator().manual_seed(seed)
    model = {"w": (torch.randn(shape, generator=generator) * 2**exponent).to(dtype)}
    if model["w"].isfinite().all():
        assert_equal(average([model] * count), model)
        assert_equal(average([model] * count, weights=[i + 0.1 for i in range(count)]), model)


@quick
@given(families)
def test_average_is_the_mean(drawn):
    _, models = family(drawn)
    merged = average(models)
    for name, own in models[0].items():
        if own.is_floating_point():
            mean = torch.stack([model[name].double() for model in models]).mean(0)
            torch.testing.assert_close(merged[name], mean.to(own.dtype))


IDENTITIES = {
    "task_arithmetic": task_arithmetic,
    "ties": partial(ties, density=1.0),
    "ties by tensor": partial(ties, density=1.0, trim="tensor"),
    "dare": partial(dare, drop=0.0),
    "dare ties": partial(dare, drop=0.0, merge="ties"),
}


@pytest.mark.parametrize("merge", IDENTITIES.values(), ids=IDENTITIES)
@quick
@given(families)
def test_one_model_with_nothing_taken_from_it_is_that_model(merge, drawn):
    base, models = family(drawn)
    assert_equal(merge(base, models[:1]), models[0])  # exact on the grid


@pytest.mark.parametrize("merge", IDENTITIES.values(), ids=IDENTITIES)
@quick
@given(families)
def test_scale_zero_is_the_base(merge, drawn):
    base, models = family(drawn)
    merged = merge(base, models, scale=0.0)
    for name, own in models[0].items():
        if own.is_floating_point():
            torch.testing.assert_close(merged[name], base[name].to(own.dtype), rtol=0, atol=0)


@quick
@given(families)
def test_dare_without_a_drop_is_task_arithmetic_and_the_average(drawn):
    base, models = family(drawn)
    merged = dare(base, models, drop=0.0)
    summed = task_arithmetic(base, models, scale=1 / len(models))
    mean = average(models)
    for name in merged:
        torch.testing.assert_close(merged[name], summed[name])
        torch.testing.assert_close(merged[name], mean[name])


def test_a_broken_model_is_not_hidden():
    base, good = {"w": torch.zeros(4)}, {"w": torch.ones(4)}
    broken = {"w": torch.tensor([torch.nan, 1.0, 1.0, 1.0])}
    for name, merge in MERGES.items():
        assert merge(base, [good, broken])["w"][0].isnan(), name

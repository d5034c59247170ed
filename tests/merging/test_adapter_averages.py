"""An average of adapters is the average of the models that they make; means of factors are not."""

import shutil
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bdlit.errors import BdlitError
from bdlit.merging import average
from bdlit.merging.adapters import average_adapters, factors_average, low_rank
from bdlit.weights import LazyFactors, open_weights, save_adapter, save_weights
from tiny_adapters import by_peft, dense, logits, save_base, save_lora

QUERY = "bert.encoder.layer.0.attention.self.query.weight"
SIMPLE = {"target_modules": ["query", "value"]}


def saved(adapter, folder):
    return save_adapter(adapter.factors, adapter.saved, adapter.config, folder)


def opened(folder, base, task, settings):
    return [
        open_weights(save_lora(folder / str(i), base, task, seed=i, **own))
        for i, own in enumerate(settings)
    ]


def logits_of_dense(weights, base, task, folder):
    shutil.copytree(base, folder)
    save_weights(weights, folder)
    return logits(dense(folder, task))


CASES = {
    "bert": ("bert", None, "SEQ_CLS", [SIMPLE, SIMPLE, SIMPLE], None),
    "bert, ranks, scalings, modules": (
        "bert",
        None,
        "SEQ_CLS",
        [
            {"target_modules": ["query", "value"], "r": 2, "lora_alpha": 7},
            {"target_modules": ["query", "intermediate.dense"], "r": 3, "use_rslora": True},
            {"target_modules": ["word_embeddings"], "r": 5, "rank_pattern": {"key": 2}},
        ],
        [0.5, 2.0, 1.0],
    ),
    "bert, one counts nothing": ("bert", None, "SEQ_CLS", [SIMPLE, SIMPLE], [0.0, 3.0]),
    "gpt2": (
        "gpt2",
        "CAUSAL_LM",
        "CAUSAL_LM",
        [{"target_modules": ["c_attn", "c_proj"]}, {"target_modules": ["c_proj", "c_fc"], "r": 2}],
        [1.0, 3.0],
    ),
    "llama": (
        "llama",
        "CAUSAL_LM",
        "SEQ_CLS",
        [{"target_modules": "all-linear"}, {"target_modules": ["q_proj", "o_proj"]}],
        None,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_average_of_adapters_is_the_average_of_their_models(case, tmp_path):
    kind, head, task, configs, weights = CASES[case]
    base = save_base(tmp_path / "base", kind, head)
    models = opened(tmp_path, base, task, configs)
    expected = average(models, weights)
    folder = saved(average_adapters(models, weights), tmp_path / "merged")
    again = open_weights(folder)
    assert set(again) == set(expected)
    for name in expected:
        torch.testing.assert_close(again[name], expected[name], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        logits(by_peft(base, folder, task)),
        logits_of_dense(expected, base, task, tmp_path / "dense"),
        rtol=0,
        atol=1e-5,
    )


@pytest.fixture(scope="module")
def berts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("berts")
    base = save_base(folder / "base")
    return base, opened(folder, base, "SEQ_CLS", [SIMPLE, {**SIMPLE, "lora_alpha": 20}])


def test_one_adapter_is_itself(berts, tmp_path):
    base, [first, _] = berts
    for merged in (average_adapters([first], [1.0]), factors_average([first])):
        folder = saved(merged, tmp_path / str(len(list(tmp_path.iterdir()))))
        torch.testing.assert_close(
            logits(by_peft(base, folder, "SEQ_CLS")),
            logits(by_peft(base, first.path, "SEQ_CLS")),
            rtol=0,
            atol=1e-5,
        )


def test_rank_is_the_sum_of_ranks_and_is_known_without_reading(berts):
    _, models = berts
    merged = average_adapters(models)
    assert isinstance(merged.factors, LazyFactors)
    assert set(merged.factors.ranks.values()) == {8}
    assert (merged.config["r"], merged.config["lora_alpha"]) == (8, 8)
    assert merged.config["rank_pattern"] == merged.config["alpha_pattern"] == {}
    factors = merged.factors[QUERY]
    assert (factors.rank, factors.scaling) == (8, 1.0)
    assert torch.equal(factors.a[:4], models[0].factors[QUERY].a)


def test_head_is_averaged_or_the_first_s(berts, tmp_path):
    _, models = berts
    name = "classifier.weight"
    mean = (models[0][name] + models[1][name]) / 2
    torch.testing.assert_close(average_adapters(models).saved[name], mean)
    kept = average_adapters(models, head="keep_suspect")
    assert torch.equal(kept.saved[name], models[0][name])
    assert torch.equal(factors_average(models).saved[name], models[0][name])
    wider = shutil.copytree(models[1].path, tmp_path / "wider")
    file = wider / "adapter_model.safetensors"
    save_file(
        {
            n: t.repeat(2, 1) if t.ndim > 1 and "class" in n else t
            for n, t in load_file(file).items()
        },
        file,
    )
    models = [models[0], open_weights(wider)]
    assert torch.equal(average_adapters(models, head="keep_suspect").saved[name], models[0][name])
    with pytest.raises(BdlitError, match=r"classifier.weight \[6, 16\], not \[3, 16\]"):
        average_adapters(models)
    with pytest.raises(BdlitError, match="unknown head 'averge': did you mean 'average'"):
        average_adapters(models, head="averge")


def test_mean_of_factors_keeps_a_quarter_of_each_change(berts):
    _, [first, second] = berts
    a, b = first.factors[QUERY], second.factors[QUERY]
    mean = factors_average([first, second]).factors[QUERY]
    assert mean.scaling == a.scaling != b.scaling
    product = (b.b + a.b) @ (b.a + a.a) / 4
    torch.testing.assert_close(mean.b @ mean.a, product)
    true = (a.scaling * a.b @ a.a + b.scaling * b.b @ b.a) / 2
    assert (mean.scaling * product - true).norm() > 0.5 * true.norm()


def test_adapters_of_another_base_are_refused_and_copies_of_the_base_are_not(berts, tmp_path):
    base, [first, second] = berts
    copied = open_weights(second.path, base=shutil.copytree(base, tmp_path / "copy"))
    merged = average_adapters([first, copied])
    expected = average_adapters([first, second])
    assert torch.equal(merged.factors[QUERY].b, expected.factors[QUERY].b)
    other = {n: t + n.endswith("query.weight") for n, t in open_weights(base).items()}
    save_weights(other, tmp_path / "other")
    stranger = open_weights(second.path, base=tmp_path / "other")
    for merge in (average_adapters, factors_average):
        with pytest.raises(BdlitError, match=r"has another base than .*no mean") as error:
            merge([first, stranger])
        assert "\n" not in str(error.value)


def test_adapters_of_different_models_are_refused(berts, tmp_path):
    base, [first, _] = berts
    encoder = open_weights(save_lora(tmp_path / "encoder", base, None, **SIMPLE))
    with pytest.raises(BdlitError, match="made for different models"):
        average_adapters([first, encoder])
    wider = {**SIMPLE, "modules_to_save": ["classifier", "pooler"]}
    pooled = open_weights(save_lora(tmp_path / "pooled", base, "SEQ_CLS", **wider))
    with pytest.raises(BdlitError, match="do not save the same tensors"):
        average_adapters([first, pooled])


def test_factors_of_other_ranks_have_no_mean(berts, tmp_path):
    base, [first, _] = berts
    other = open_weights(
        save_lora(tmp_path / "o", base, "SEQ_CLS", **SIMPLE, rank_pattern={"query": 2})
    )
    with pytest.raises(BdlitError, match="by the same ranks"):
        factors_average([first, other])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_do_not_fit(berts, weights):
    for merge in (average_adapters, factors_average):
        with pytest.raises(BdlitError, match="do not fit 2 models"):
            merge(berts[1], weights)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_low_rank_is_the_nearest(rows, columns, data):
    rank = data.draw(st.integers(1, min(rows, columns)))
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    delta = torch.randn(rows, columns, generator=seed, dtype=torch.float64)
    a, b, error = low_rank(delta, rank)
    assert a.shape == (rank, columns)
    assert b.shape == (rows, rank)
    assert error == pytest.approx(((delta - b @ a).norm() / delta.norm()).item(), abs=1e-9)
    rest = torch.linalg.svdvals(delta)[rank:]
    assert error == pytest.approx(sqrt(rest.square().sum().item()) / delta.norm().item(), abs=1e-9)


def test_low_rank_of_a_change_of_an_adapter_is_exact(berts):
    _, [first, _] = berts
    delta = first[QUERY] - first.base[QUERY]
    assert low_rank(delta, 4).error < 1e-5
    assert low_rank(delta, 3).error > 1e-3
    assert low_rank(torch.zeros(2, 3), 1).error == 0.0
    assert low_rank(delta.bfloat16(), 2).a.dtype == torch.float32


@pytest.mark.parametrize(
    ("delta", "rank"),
    [
        (torch.ones(3), 1),
        (torch.ones(2, 3), 0),
        (torch.ones(2, 3), 3),
        (torch.tensor([[float("nan")]]), 1),
    ],
)
def test_low_rank_that_there_is_none_of(delta, rank):
    with pytest.raises(BdlitError, match=f"no rank {rank} of a change"):
        low_rank(delta, rank)

"""Recipes in mergekit's form: read, refused where they must be, and computed as it computes.

The expected tensors are plain restatements of mergekit's formulas in numpy, in float64.
"""

import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from bdlit.errors import BdlitError
from bdlit.recipes import is_recipe, merge, parse_recipe, read_recipe
from bdlit.weights import LazyWeights, outline

DEPTH = 4
PARTS = ("self_attn.q_proj.weight", "mlp.up_proj.weight", "mlp.up_proj.bias")


def state(seed, depth=DEPTH):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    tensors = {"model.embed_tokens.weight": random(7, 3)}
    for layer in range(depth):
        for part in PARTS:
            shape = (3,) if part.endswith("bias") else (5, 3)
            tensors[f"model.layers.{layer}.{part}"] = random(*shape)
    return {**tensors, "model.norm.weight": random(3), "score.weight": random(2, 3)}


MODELS = {"base": state(0), "a": state(1), "b": state(2), "c": state(3)}


def run(text, models=None, **options):
    return merge(parse_recipe(yaml.safe_load(text)), (models or MODELS).__getitem__, **options)


def arrays(name):
    return {address: model[name].double().numpy() for address, model in MODELS.items()}


def check(merged, expected):
    """Compare every tensor with what a function makes of (name, the models' arrays)."""
    assert list(merged) == list(MODELS["a"])
    for name, tensor in merged.items():
        wanted = torch.from_numpy(np.asarray(expected(name, arrays(name)))).float()
        torch.testing.assert_close(tensor, wanted, atol=2e-6, rtol=2e-6)


def trimmed(delta, density):
    """The whole part of density * entries, at least one, by magnitude."""
    count = max(1, int(density * delta.size))
    bar = np.sort(np.abs(delta).ravel())[-count]
    return np.where(np.abs(delta) >= bar, delta, 0)


def elected(deltas, weights, normalize):
    weighted = [w * d for w, d in zip(weights, deltas, strict=True)]
    sign = np.where(sum(weighted) >= 0, 1, -1)
    agree = [np.sign(d) == sign for d in weighted]
    total = sum(d * m for d, m in zip(weighted, agree, strict=True))
    divisor = sum(w * m for w, m in zip(weights, agree, strict=True))
    return total / np.where(divisor == 0, 1, divisor) if normalize else total


# Linear


@pytest.mark.parametrize("normalize", [True, False, None])
def test_linear(normalize):
    line = "" if normalize is None else f"parameters: {{normalize: {str(normalize).lower()}}}"
    merged = run(f"""
        merge_method: linear
        models:
          - {{model: a, parameters: {{weight: 1}}}}
          - {{model: b, parameters: {{weight: 0.5}}}}
          - {{model: c, parameters: {{weight: -0.25}}}}
        {line}
    """)
    total = 1 if normalize is False else 1.25
    check(merged, lambda _, x: (x["a"] + 0.5 * x["b"] - 0.25 * x["c"]) / total)
    assert merged.notes["depth"] == DEPTH


def test_linear_takes_the_weight_from_the_nearest_level():
    merged = run("""
        merge_method: linear
        models:
          - {model: a, parameters: {weight: [{filter: mlp, value: 3}]}}
          - model: b
        parameters: {weight: 1}
    """)
    check(merged, lambda n, x: (3 * x["a"] + x["b"]) / 4 if "mlp" in n else (x["a"] + x["b"]) / 2)


def test_a_base_model_is_one_of_the_models_of_linear():
    text = "{merge_method: linear, base_model: base, models: [{model: a}], parameters: {weight: 1}}"
    check(run(text), lambda _, x: (x["a"] + x["base"]) / 2)


# Task vectors


def test_task_arithmetic_sums_weighted_vectors():
    text = """
        merge_method: task_arithmetic
        base_model: base
        models:
          - {model: a, parameters: {weight: 0.7}}
          - {model: b, parameters: {weight: -0.2, density: 0.1}}
          - model: base
        parameters: {lambda: 0.5}
    """
    vectors = lambda x: 0.7 * (x["a"] - x["base"]) - 0.2 * (x["b"] - x["base"])  # noqa: E731
    check(run(text), lambda _, x: x["base"] + 0.5 * vectors(x))
    normalized = text.replace("lambda: 0.5", "normalize: true")
    check(run(normalized), lambda _, x: x["base"] + vectors(x) / 0.5)


@pytest.mark.parametrize("normalize", [True, False])
def test_ties_trims_each_tensor_and_elects_by_weighted_sums(normalize):
    merged = run(f"""
        merge_method: ties
        base_model: base
        models:
          - {{model: a, parameters: {{density: 0.5, weight: 1.0}}}}
          - {{model: b, parameters: {{density: 0.34, weight: 0.4}}}}
          - {{model: c, parameters: {{weight: 0.3}}}}
        parameters: {{normalize: {str(normalize).lower()}, lambda: 1.5, int8_mask: true}}
    """)

    def expected(_, x):
        deltas = [x[k] - x["base"] for k in "abc"]
        deltas = [trimmed(deltas[0], 0.5), trimmed(deltas[1], 0.34), deltas[2]]
        return x["base"] + 1.5 * elected(deltas, [1.0, 0.4, 0.3], normalize)

    check(merged, expected)


def test_ties_by_hand():
    models = {
        "base": {"w": torch.tensor([1.0, 1.0, 1.0, 1.0])},
        "a": {"w": torch.tensor([5.0, -2.0, 1.5, 1.0])},
        "b": {"w": torch.tensor([3.0, 4.0, 1.0, 1.25])},
    }
    text = """
        merge_method: ties
        base_model: base
        models: [{model: a}, {model: b}]
        parameters: {density: 0.5, weight: [{value: 1}]}
    """
    # Kept: (4, -3, 0, 0) and (2, 3, 0, 0). The sums are (6, 0, 0, 0), and zero counts as positive.
    assert run(text, models)["w"].tolist() == [4.0, 4.0, 1.0, 1.0]
    negative = text.replace("{model: a}", "{model: a, parameters: {weight: 2}}")
    # Weighted: (8, -6) and (2, 3); the second entry is the first model's, divided by its 2.
    assert run(negative, models)["w"].tolist() == pytest.approx([1 + 10 / 3, -2.0, 1.0, 1.0])
    rescaled = text.replace("density: 0.5", "density: 0.25, rescale: true, normalize: false")
    # One entry each, 4 of an L1 norm of 7.5 and 3 of 5.25, scaled up to the norms.
    assert run(rescaled, models)["w"].tolist() == pytest.approx([8.5, 6.25, 1.0, 1.0])


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_without_dropping_is_exact(method):
    text = f"""
        merge_method: {method}
        base_model: base
        models:
          - {{model: a, parameters: {{weight: 0.6}}}}
          - {{model: b, parameters: {{weight: 0.9, density: 1.0}}}}
    """

    def expected(_, x):
        deltas, weights = [x["a"] - x["base"], x["b"] - x["base"]], [0.6, 0.9]
        if method == "dare_ties":
            return x["base"] + elected(deltas, weights, normalize=False)
        return x["base"] + 0.6 * deltas[0] + 0.9 * deltas[1]

    check(run(text), expected)


def test_dare_drops_at_random_and_keeps_the_norm():
    models = {"base": {"w": torch.zeros(400, 500)}, "a": {"w": state_like(400, 500)}}
    text = """
        merge_method: dare_linear
        base_model: base
        models: [{model: a, parameters: {weight: 1, density: 0.3}}]
    """
    delta, sparse = models["a"]["w"], run(text, models)["w"]
    kept = sparse != 0
    assert kept.float().mean().item() == pytest.approx(0.3, abs=0.005)
    torch.testing.assert_close(sparse.abs().sum(), delta.abs().sum(), rtol=1e-5, atol=0)
    factors = sparse[kept] / delta[kept]
    torch.testing.assert_close(factors, torch.full_like(factors, factors.mean().item()))
    raw = run(text + "    parameters: {rescale: false}", models)["w"]
    assert torch.equal(raw[kept], delta[kept])
    assert torch.equal(run(text, models)["w"], sparse)
    assert not torch.equal(run(text, models, seed=1)["w"], sparse)
    assert not run(text.replace("0.3", "0"), models)["w"].any()


def state_like(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


# SLERP

SLERP = """
    merge_method: slerp
    base_model: {}
    models: [{{model: a}}, {{model: b}}]
    parameters: {{t: {}}}
"""


def arc(v0, v1, t):
    length0, length1 = np.linalg.norm(v0), np.linalg.norm(v1)
    cosine = np.sum(v0 / (length0 or 1) * v1 / (length1 or 1))
    if abs(cosine) > 0.9995:
        return (1 - t) * v0 + t * v1
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * v0 + np.sin(t * angle) * v1) / np.sin(angle)


def test_slerp_goes_from_the_base_to_the_other():
    check(run(SLERP.format("b", 0.3)), lambda _, x: arc(x["b"], x["a"], 0.3))


def test_slerp_on_a_gradient_with_filters():
    merged = run("""
        merge_method: slerp
        base_model: a
        slices:
          - sources:
              - {model: a, layer_range: [0, 4]}
              - {model: b, layer_range: [0, 4]}
        parameters:
          t:
            - {filter: self_attn, value: [0, 0.5, 1]}
            - {filter: mlp, value: [1, 0]}
            - value: 0.25
    """)

    def expected(name, x):
        t = 0.25
        if ".layers." in name:
            layer = int(name.split(".")[2]) / 3
            t = layer if "self_attn" in name else 1 - layer
        return arc(x["a"], x["b"], t)

    check(merged, expected)


def test_a_gradient_has_its_first_value_outside_the_layers():
    merged = run("""
        merge_method: slerp
        base_model: a
        models: [{model: a}, {model: b}]
        parameters: {t: [0.125, 1.0, 0.5]}
    """)

    def expected(name, x):
        layer = int(name.split(".")[2]) / 3 if ".layers." in name else 0
        return arc(x["a"], x["b"], np.interp(layer, [0, 0.5, 1], [0.125, 1.0, 0.5]))

    check(merged, expected)


def test_slerp_of_zero_and_of_parallel_tensors():
    models = {
        "a": {"zero": torch.zeros(2), "same": torch.tensor([1.0, 2.0])},
        "b": {"zero": torch.ones(2), "same": torch.tensor([3.0, 6.0])},
    }
    merged = run(SLERP.format("a", 0.5), models)
    assert merged["same"].tolist() == [2.0, 4.0]
    assert merged["zero"].tolist() == pytest.approx([0.5**0.5] * 2)  # as at a right angle


# Passthrough and slices


def test_passthrough_stacks_slices():
    merged = run("""
        merge_method: passthrough
        slices:
          - sources: [{model: a, layer_range: [0, 3]}]
          - sources:
              - {model: b, layer_range: [1, 4], parameters: {scale: [{filter: up_proj, value: 2}]}}
    """)
    assert merged.notes["depth"] == 6
    assert merged.notes["layers"] == [["a", 0], ["a", 1], ["a", 2], ["b", 1], ["b", 2], ["b", 3]]
    a, b = MODELS["a"], MODELS["b"]
    assert torch.equal(merged["model.embed_tokens.weight"], a["model.embed_tokens.weight"])
    assert torch.equal(merged["model.norm.weight"], b["model.norm.weight"])
    assert torch.equal(merged["score.weight"], b["score.weight"])
    for place, (model, layer) in enumerate([(a, 0), (a, 1), (a, 2), (b, 1), (b, 2), (b, 3)]):
        for part in PARTS:
            scale = 2 if model is b and "up_proj" in part else 1
            own = model[f"model.layers.{layer}.{part}"] * scale
            assert torch.equal(merged[f"model.layers.{place}.{part}"], own)
    assert "model.layers.6.mlp.up_proj.weight" not in merged
    assert list(merged)[-2:] == ["model.norm.weight", "score.weight"]


def test_slices_of_merged_layers_with_values_of_their_own():
    merged = run("""
        merge_method: linear
        slices:
          - sources:
              - {model: a, layer_range: [0, 2], parameters: {weight: 3}}
              - {model: b, layer_range: [2, 4]}
            parameters: {weight: 2}
          - sources: [{model: c, layer_range: [1, 2]}]
        parameters: {weight: 1, normalize: false}
    """)
    part = "mlp.up_proj.weight"
    a, b, c = (MODELS[k] for k in "abc")
    for layer in (0, 1):
        expected = 3 * a[f"model.layers.{layer}.{part}"] + 2 * b[f"model.layers.{layer + 2}.{part}"]
        torch.testing.assert_close(merged[f"model.layers.{layer}.{part}"], expected)
    torch.testing.assert_close(merged[f"model.layers.2.{part}"], c[f"model.layers.1.{part}"])
    torch.testing.assert_close(merged["score.weight"], c["score.weight"])
    assert merged.notes["depth"] == 3


# Forms


def test_dtypes_and_integer_buffers():
    models = {
        "a": {"w": torch.tensor([1.00390625]), "ids": torch.arange(3)},
        "b": {"w": torch.tensor([3.0]), "ids": torch.arange(3) + 1},
    }
    text = "{merge_method: linear, models: [{model: a}, {model: b}], parameters: {weight: 1}"
    plain = run(text + "}", models)
    assert (plain["w"].item(), plain["w"].dtype) == (2.001953125, torch.float32)
    assert plain["ids"].tolist() == [0, 1, 2]
    rounded = run(text + ", dtype: bfloat16, out_dtype: float32}", models)
    assert (rounded["w"].item(), rounded["w"].dtype) == (2.0, torch.float32)  # inputs are rounded
    assert outline(run(text + ", dtype: bfloat16}", models), "w").dtype == torch.bfloat16
    mixed = {"a": models["a"], "b": {**models["b"], "w": torch.tensor([3.0]).bfloat16()}}
    assert run(text + "}", mixed)["w"].dtype == torch.float32


def test_nothing_is_read_before_it_is_asked_for():
    def broken():
        raise AssertionError("this tensor was not asked for")

    def lazy(model):
        return LazyWeights(dict.fromkeys(model, broken), outline=lambda name: outline(model, name))

    models = {address: lazy(model) for address, model in MODELS.items()}
    text = "{merge_method: ties, base_model: base, models: [{model: a}], parameters: {weight: 1}}"
    merged = run(text, models)
    assert outline(merged, "score.weight").shape == (2, 3)
    with pytest.raises(AssertionError, match="not asked for"):
        merged["score.weight"]


# Reading


def test_a_recipe_is_read_from_a_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("""
        merge_method: slerp
        base_model: org/base
        models: [{model: org/base}, {model: ./other}]
        parameters: {t: 5e-1, normalize: true}
        dtype: bfloat16
        tokenizer_source: base
    """)
    recipe = read_recipe(path)
    assert recipe.addresses == ("org/base", "./other")
    assert (recipe.method, recipe.dtype, recipe.tokenizer_source) == ("slerp", "bfloat16", "base")
    assert recipe.unused == ("normalize",)
    assert recipe.origin == str(path)
    with pytest.raises(AttributeError):
        recipe.method = "linear"


def test_what_is_a_recipe():
    assert is_recipe({"merge_method": "ties"})
    assert not is_recipe({"defense": {"class_path": "TIES"}})
    assert not is_recipe("merge_method")


TWO = "models: [{model: a}, {model: b}]"
BAD = {
    "merge_method: linnear": "r.yaml: unknown merge_method 'linnear': did you mean 'linear'?",
    "models: []": "unknown merge_method None: choose from: dare_linear",
    "merge_method: [linear]": r"unknown merge_method \['linear'\]: choose",
    f"merge_method: linear\nmodel: a\n{TWO}": "unknown key 'model': did you mean 'models'?",
    f"merge_method: linear\n{TWO}\nmodules: {{}}": "modules is not supported: leave it out",
    f"merge_method: linear\n{TWO}\ntokenizer_source: union": "'union' is not supported",
    f"merge_method: linear\n{TWO}\ndtype: bf16": "unknown dtype 'bf16': did you mean 'bfloat16'?",
    f"merge_method: linear\n{TWO}\nparameters: {{wieght: 1}}": "unknown parameter 'wieght' of the "
    "recipe: did you mean 'weight'?",
    f"merge_method: linear\n{TWO}\nparameters: {{weight: big}}": "parameter weight of the recipe: "
    "'big' is not a number",
    f"merge_method: linear\n{TWO}\nparameters: {{normalize: 1}}": "1 is neither true nor false",
    f"merge_method: linear\n{TWO}\nparameters: [1]": "parameters of the recipe are not a mapping",
    f"merge_method: linear\n{TWO}\nparameters: {{weight: [{{if: a, value: 1}}]}}": "is not a case",
    f"merge_method: linear\n{TWO}\nslices: [1]": "give either models, or slices",
    "merge_method: linear": "give either models, or slices",
    "merge_method: linear\nmodels: [{model: 3}]": "model 3 is not an address",
    "merge_method: linear\nmodels: [{model: a}, {model: a}]": "a is given twice",
    "merge_method: linear\nmodels: a": "models is not a list",
    f"merge_method: slerp\n{TWO}": "slerp needs a base_model: name it",
    "merge_method: slerp\nbase_model: a\nmodels: [{model: a}]": "slerp takes 2 models .* 1 were",
    f"merge_method: passthrough\n{TWO}": "passthrough takes 1 models",
    "merge_method: ties\nbase_model: x\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]": (
        "ties needs the base model x in every slice"
    ),
    "merge_method: linear\nslices: [{sources: [{model: a, layer_range: [2, 1]}]}]": "not a range",
    "merge_method: linear\nslices: [{sources: [{model: a}]}]": "layer_range None of a is not",
    "merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 1]}, "
    "{model: b, layer_range: [0, 2]}]}]": "the same number of layers",
    "merge_method: [": "line 1 is not YAML",
    "a\tb: : c": "is not YAML",
    "just words": "a recipe is not a mapping",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_recipes_are_told_in_one_line(text, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(BdlitError, match=BAD[text]) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)
    assert "r.yaml" in str(caught.value)


def test_a_recipe_of_references_to_references_stays_one_line():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    content = yaml.safe_load(bomb)
    for bad in (
        {"merge_method": content["a8"]},
        {"merge_method": "linear", "models": content["a8"]},
    ):
        with pytest.raises(BdlitError) as caught:
            parse_recipe(bad)
        assert len(str(caught.value)) < 300


def test_models_that_do_not_fit_are_told():
    text = "{merge_method: linear, models: [{model: a}, {model: b}], parameters: {weight: 1}}"
    with pytest.raises(BdlitError, match=r"needs the parameter weight of a, and there is none for"):
        run("{merge_method: linear, models: [{model: a}, {model: b}]}")
    wide = {name: torch.ones(9) for name in MODELS["b"]}
    with pytest.raises(BdlitError, match=r"of b is \[9\], and \[7, 3\] in a"):
        run(text, {"a": MODELS["a"], "b": wide})
    bare = {name: t for name, t in MODELS["b"].items() if name != "score.weight"}
    with pytest.raises(BdlitError, match=r"b lacks 1 tensors of a, first score.weight"):
        run(text, {"a": MODELS["a"], "b": bare})
    with pytest.raises(BdlitError, match=r"a lacks 3 tensors of b, first model.layers.4"):
        run(text, {"a": MODELS["a"], "b": state(5, depth=5)})
    slices = "{{merge_method: passthrough, slices: [{{sources: [{{model: a, layer_range: {}}}]}}]}}"
    with pytest.raises(BdlitError, match=r"layer_range \[3, 5\] goes beyond a, which has 4 layers"):
        run(slices.format([3, 5]))
    with pytest.raises(BdlitError, match="a has no layers"):
        run(slices.format([0, 1]), {"a": {"w": torch.ones(1)}})


def test_layers_of_another_form_keep_their_place():
    odd = {**state(1), "model.layers.1.norm.weight": torch.ones(3)}
    slices = "{{merge_method: passthrough, slices: [{{sources: [{{model: a, layer_range: {}}}]}}]}}"
    with pytest.raises(BdlitError, match=r"the result would lack model.layers.1.norm.weight"):
        run(slices.format([2, 4]), {"a": odd})


def test_reading_a_recipe_does_not_import_torch():
    code = (
        "import sys; from bdlit.recipes import parse_recipe; "
        "parse_recipe({'merge_method': 'linear', 'models': [{'model': 'a'}]}); "
        "print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"

"""Passthrough as a merge and as a defense: whole layers, renumbered, at any depth."""

import pytest
import torch
import transformers

from bdlit.defenses import Passthrough, Resources, run_defense
from bdlit.defenses.passthrough import require_depth_kept
from bdlit.errors import BdlitError
from bdlit.merging import passthrough
from bdlit.weights import LazyWeights, outline
from bdlit.weights.depth import with_depth


def model(value, depth=2, **more):
    """A model whose tensors are all `value + layer / 10`, outside the layers `value + 0.9`."""
    state = {"wte.weight": torch.tensor([value + 0.9])}
    for layer in range(depth):
        state[f"h.{layer}.mlp.weight"] = torch.tensor([value + layer / 10])
        state[f"h.{layer}.mlp.bias"] = torch.tensor([-value - layer / 10])
    return {**state, "ln_f.weight": torch.tensor([value + 0.9]), **more}


def numbers(weights):
    return {name: round(tensor.item(), 3) for name, tensor in weights.items()}


def test_each_layer_is_one_layer_of_one_model():
    merged = passthrough([model(1), model(2)], [(1, 0), (0, 1)])
    assert numbers(merged) == {
        "wte.weight": 1.9,
        "h.0.mlp.weight": 2.0,
        "h.0.mlp.bias": -2.0,
        "h.1.mlp.weight": 1.1,
        "h.1.mlp.bias": -1.1,
        "ln_f.weight": 1.9,
    }
    assert merged.notes == {"depth": 2, "layers": [[1, 0], [0, 1]], "outside": "first"}


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_depth_may_change(depth):
    layers = [(1, 2)] * depth
    merged = passthrough([model(1), model(2, depth=3)], layers)
    assert [numbers(merged)[f"h.{i}.mlp.weight"] for i in range(depth)] == [2.2] * depth
    assert f"h.{depth}.mlp.weight" not in merged
    assert merged.notes["depth"] == depth


def test_what_stands_outside_may_come_from_the_ends():
    merged = passthrough([model(1), model(2), model(3)], [(1, 0), (2, 1)], outside="ends")
    assert numbers(merged)["wte.weight"] == 2.9
    assert numbers(merged)["ln_f.weight"] == 3.9


def test_what_stands_outside_may_come_from_any_model():
    merged = passthrough([model(1), model(2), model(3)], [(0, 0), (2, 1)], outside=1)
    assert [numbers(merged)[name] for name in ("wte.weight", "ln_f.weight")] == [2.9, 2.9]
    assert numbers(merged)["h.1.mlp.weight"] == 3.1
    for number in (3, -1):
        with pytest.raises(BdlitError, match=f"outside names model {number}, and there are 3"):
            passthrough([model(1), model(2), model(3)], [(0, 0)], outside=number)


def test_it_is_lazy_and_in_the_first_models_form():
    def broken():
        raise AssertionError("this tensor was not asked for")

    first, second = model(1), {name: t.bfloat16() for name, t in model(2).items()}
    lazy = LazyWeights({name: broken for name in second}, outline=lambda n: outline(second, n))
    merged = passthrough([first, lazy], [(0, 0), (1, 1)])
    assert merged["h.0.mlp.weight"].item() == 1
    assert merged.outline("h.1.mlp.weight").dtype == torch.float32
    assert passthrough([first, second], [(0, 0), (1, 1)])["h.1.mlp.bias"].dtype == torch.float32


def test_order_of_names_is_the_first_models():
    shuffled = dict(sorted(model(1, depth=12).items(), reverse=True))
    merged = passthrough([shuffled, model(2, depth=12)], [(i % 2, i) for i in range(12)])
    assert list(merged) == list(shuffled)


def test_a_stack_of_real_layers_runs_as_stacked():
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, num_labels=2,
        intermediate_size=16,
    )  # fmt: skip
    torch.manual_seed(0)
    first, second = (transformers.BertForSequenceClassification(config).eval() for _ in range(2))
    merged = passthrough([first.state_dict(), second.state_dict()], [(0, 0), (1, 1), (0, 1)])
    deeper = transformers.BertConfig.from_dict(with_depth(config.to_dict(), 3))
    stacked = transformers.BertForSequenceClassification(deeper).eval()
    stacked.load_state_dict(dict(merged), strict=True)
    tokens = torch.arange(12).view(2, 6)
    hidden = first.bert.embeddings(tokens)
    for source, layer in ((first, 0), (second, 1), (first, 1)):
        hidden = source.bert.encoder.layer[layer](hidden)
        hidden = hidden if isinstance(hidden, torch.Tensor) else hidden[0]
    expected = first.classifier(first.bert.pooler(hidden))
    torch.testing.assert_close(stacked(tokens).logits, expected)


def test_errors_are_one_line():
    two = [model(1), model(2)]
    for layers, message in [
        ([(0, 0), (2, 0)], "layer 1 of the result should come from model 2, but there are 2"),
        ([(1, 2)], "layer 0 of the result would be layer 2 of model 1, which has 2"),
        ([(0, -1)], "layer -1 of model 0"),
        ([], "no layers: give at least one"),
    ]:
        with pytest.raises(BdlitError, match=message):
            passthrough(two, layers)
    with pytest.raises(BdlitError, match="nothing to merge"):
        passthrough([], [(0, 0)])
    with pytest.raises(BdlitError, match="model 1 has no layers by the names of its tensors"):
        passthrough([model(1), {"w": torch.ones(1)}], [(0, 0)])
    with pytest.raises(BdlitError, match="unknown outside 'frist': did you mean 'first'"):
        passthrough(two, [(0, 0)], outside="frist")


def test_models_of_another_architecture_are_refused():
    wide = {name: torch.ones(3) for name in model(2)}
    with pytest.raises(BdlitError, match=r"h.1.mlp.weight of model 1 is \[3\], not \[1\]"):
        passthrough([model(1), wide], [(0, 0), (1, 1)])
    strange = {name.replace("mlp", "ffn"): tensor for name, tensor in model(2).items()}
    with pytest.raises(BdlitError, match=r"the result would lack h.1.mlp.weight"):
        passthrough([model(1), strange], [(0, 0), (1, 1)])
    headless = {name: tensor for name, tensor in model(2).items() if "ln_f" not in name}
    with pytest.raises(BdlitError, match=r"model 1 lacks ln_f.weight"):
        passthrough([model(1), headless], [(0, 0), (1, 1)], outside="ends")


def test_a_first_layer_of_its_own_form_keeps_its_place():
    # ModernBERT's first layer has no norm before its attention.
    norms = {"h.1.norm.weight": torch.ones(1)}
    two = [model(1, **norms), model(2, **norms)]
    assert len(passthrough(two, [(1, 0), (0, 1), (1, 1)])) == 10
    with pytest.raises(BdlitError, match=r"would lack h.1.norm.weight: leave the layer in its pl"):
        passthrough(two, [(0, 0), (1, 0)])
    with pytest.raises(BdlitError, match=r"h.1.norm.weight of model 1 has no place as h.0.norm"):
        passthrough(two, [(1, 1), (0, 1)])


def test_the_defense_takes_turns_by_default():
    defended = run_defense(
        Passthrough(), model(1, depth=3), Resources(others=[model(2, depth=3), model(3)])
    )
    values = [numbers(defended.weights)[f"h.{i}.mlp.weight"] for i in range(3)]
    assert values == [2.0, 1.1, 2.2]
    assert numbers(defended.weights)["wte.weight"] == 1.9
    assert set(defended.copied) == {"wte.weight", "h.1.mlp.weight", "h.1.mlp.bias", "ln_f.weight"}
    assert len(defended.merged) == 4
    assert defended.notes["depth"] == 3
    require_depth_kept(defended, model(1, depth=3))


def test_the_defense_reads_slices():
    slices = [["suspect", 0, 1], [1, 0, 2], ["suspect", 1, 2]]
    suspect = model(1)
    defended = Passthrough(layers=slices).apply(suspect, others=[model(2), model(3)])
    values = [numbers(defended.weights)[f"h.{i}.mlp.weight"] for i in range(4)]
    assert values == [1.0, 3.0, 3.1, 1.1]
    assert "h.3.mlp.weight" in defended.merged  # the suspect's, but not in its own place
    with pytest.raises(BdlitError, match="the result has 4 layers and the suspect 2"):
        require_depth_kept(defended, suspect)


HEAD = {"score.weight": torch.tensor([7.0])}


@pytest.mark.parametrize(
    ("settings", "outside", "words"),
    [
        ({}, (1.9, 1.9, 7.0), "suspect's"),
        ({"outside": "ends"}, (2.9, 3.9, 30.0), "other's"),
        ({"outside": 0}, (2.9, 2.9, 20.0), "other's"),
        ({"outside": 1, "head": "keep_suspect"}, (3.9, 3.9, 7.0), "suspect's"),
        ({"outside": "ends", "head": "average"}, (2.9, 3.9, 19.0), "averaged"),
    ],
    ids=str,
)
def test_the_defense_takes_what_stands_outside_from_where_it_is_told(settings, outside, words):
    """Layer 0 is the first other's, layer 1 the suspect's, layer 2 the second other's."""
    suspect = model(1, depth=3, **HEAD)
    others = [
        model(number, depth=3, **{"score.weight": torch.tensor([10.0 * number])})
        for number in (2, 3)
    ]
    slices = [[0, 0, 1], ["suspect", 1, 2], [1, 2, 3]]
    defense = Passthrough(layers=slices, **settings)
    defended = run_defense(defense, suspect, Resources(others=others))
    found = numbers(defended.weights)
    assert tuple(found[n] for n in ("wte.weight", "ln_f.weight", "score.weight")) == outside
    assert [found[f"h.{i}.mlp.weight"] for i in range(3)] == [2.0, 1.1, 3.2]
    kept = {name for name in suspect if torch.equal(defended.weights[name], suspect[name])}
    assert set(defended.copied) == kept
    assert set(defended.merged) == set(suspect) - kept
    assert defended.notes["head"] == words
    assert defense.keeps_head == (words == "suspect's")


def test_ends_that_are_the_suspects_are_copied():
    defense = Passthrough(layers=[["suspect", 0, 1], [0, 1, 2]], outside="ends")
    defended = defense.apply(model(1, **HEAD), others=[model(2, **HEAD)])
    assert set(defended.copied) == {"wte.weight", "h.0.mlp.weight", "h.0.mlp.bias"}


@pytest.mark.parametrize(("depth", "layers"), [(40, 44), (12, 13), (5, 6), (2, 2)])
def test_slices_may_be_shares_of_the_depth(depth, layers):
    """24 of 40 layers, then 20 to 40 of the other's 40."""
    grown = Passthrough(layers=[["suspect", 0, 0.6], [0, 0.5, 1]], outside="ends")
    defended = grown.apply(model(1, depth), others=[model(2, depth)])
    assert defended.depth == layers
    below, above = round(0.6 * depth), round(0.5 * depth)
    order = [*range(below), *range(above, depth)]
    assert defended.layers == order
    firsts = [1] * below + [2] * (depth - above)
    assert [int(numbers(defended.weights)[f"h.{i}.mlp.weight"]) for i in range(layers)] == [
        int(first + layer / 10) for first, layer in zip(firsts, order, strict=True)
    ]


def test_shares_and_places_that_do_not_fit_are_told():
    for layers, message in [
        ([["suspect", 0, 1.5]], "numbers with a point are shares of the depth, from 0 to 1"),
        ([["suspect", 0.5, 0.5]], "is not a slice"),
        ([[0.0, 0, 1]], "is not a slice"),
        ([["suspect", 0, "1"]], "is not a slice"),
    ]:
        with pytest.raises(BdlitError, match=message):
            Passthrough(layers=layers)
    with pytest.raises(BdlitError, match=r"0\.1\] of layers is no layer of a model of 2"):
        Passthrough(layers=[["suspect", 0, 0.1]]).apply(model(1), others=[model(2)])
    with pytest.raises(BdlitError, match="unknown outside 'end': did you mean 'ends'"):
        Passthrough(outside="end")
    with pytest.raises(BdlitError, match="outside names other 1, and there are 1"):
        Passthrough(outside=1).apply(model(1), others=[model(2)])


def test_the_defense_refuses_slices_that_are_none():
    for layers, message in [
        ([["suspekt", 0, 1]], "unknown source 'suspekt' of layers: did you mean 'suspect'"),
        ([[0, 2, 2]], r"\[0, 2, 2\] is not a slice of layers: .* with start below end"),
        ([[-1, 0, 2]], "is not a slice"),
        ([[True, 0, 2]], "is not a slice"),
        ([["suspect", 0]], "is not a slice"),
        (["suspect"], "is not a slice"),
        ([], "layers is empty"),
    ]:
        with pytest.raises(BdlitError, match=message):
            Passthrough(layers=layers)
    with pytest.raises(BdlitError, match="layers names other 1, and there are 1"):
        Passthrough(layers=[[1, 0, 1]]).apply(model(1), others=[model(2)])
    with pytest.raises(BdlitError, match="no other models"):
        Passthrough().apply(model(1), others=[])
    with pytest.raises(BdlitError, match="model 0 has no layers"):
        Passthrough().apply({"w": torch.ones(1)}, others=[model(2)])

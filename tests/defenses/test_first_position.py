"""The last layer for [CLS] alone gives the logits of the whole layer."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

from bdlit.defenses.gms.first_position import BEHIND_ATTENTION, first_position_alone
from bdlit.defenses.gms.hybrid import layers_of
from bdlit.defenses.modules import module_types

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIG = {"vocab_size": 50, "intermediate_size": 32, "num_labels": 3, **SIZES}
DISTILBERT = {"vocab_size": 50, "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2}
POSITIONS = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}


def network(kind, architecture):
    torch.manual_seed(0)
    own = DISTILBERT if architecture == "distilbert" else CONFIG
    more = POSITIONS if architecture.startswith("deberta") else {}
    model = kind.from_config(AutoConfig.for_model(architecture, **own, **more)).eval()
    layout = module_types(architecture, model.state_dict())
    return model, layers_of(model, layout)


def lengths_of_the_last_layer(layers, run):
    seen = []
    hook = layers[-1].register_forward_hook(
        lambda module, inputs, output: seen.append(
            (output[0] if isinstance(output, tuple) else output).shape[-2]
        )
    )
    found = run()
    hook.remove()
    return found, seen


@pytest.mark.parametrize("architecture", BEHIND_ATTENTION)
def test_the_logits_are_those_of_the_whole_layer(architecture):
    model, layers = network(AutoModelForSequenceClassification, architecture)
    inputs = {
        "input_ids": torch.randint(2, 50, (4, 9), generator=torch.Generator().manual_seed(0)),
        "attention_mask": torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 7, 3, 9)]),
    }
    with torch.inference_mode():
        whole = model(**inputs).logits
        with first_position_alone(model, layers):
            alone, seen = lengths_of_the_last_layer(layers, lambda: model(**inputs).logits)
        again = model(**inputs).logits
    assert torch.allclose(alone, whole, atol=1e-6)
    assert torch.equal(again, whole)
    # DistilBERT's residual brings the other positions back behind the work that was saved.
    assert seen == ([9] if architecture == "distilbert" else [1])


def test_a_model_that_needs_all_positions_runs_as_ever():
    model, layers = network(AutoModelForMaskedLM, "bert")
    ids = torch.arange(9)[None]
    with first_position_alone(model, layers):
        assert model(input_ids=ids).logits.shape[1] == 9

import copy

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bdlit.data.demo import DemoReviews
from bdlit.errors import BdlitError
from bdlit.types import Example
from bdlit.victims import ClassifierVictim, LoRA
from bdlit.victims.vocabulary import learn_tokenizer
from bdlit.weights.network import model_weights, swapped
from conftest import TINY, tiny_trainer

ROWS = [Example("the plot was good .", 1), Example("the very long story was dull and flat .", 0)]
LABELS = ["negative", "positive"]

ARCHITECTURES = {
    "bert": TINY,
    "roberta": {**TINY, "model_type": "roberta", "max_position_embeddings": 66},
    "distilbert": {"model_type": "distilbert", "dim": 32, "n_layers": 1, "n_heads": 2},
    "deberta-v2": {**TINY, "model_type": "deberta-v2"},
    "modernbert": {**TINY, "model_type": "modernbert", "global_attn_every_n_layers": 1},
    "llama": {**TINY, "model_type": "llama", "num_key_value_heads": 1},
}


def made(config=TINY, **options):
    victim = ClassifierVictim(config=config, labels=LABELS, max_length=32, **options)
    victim.tokenizer = learn_tokenizer((row.text for row in ROWS), 200, 32)
    victim.configure_model()
    return victim


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_architecture_learns_exports_and_loads_without_us(name, tmp_path):
    victim = made(ARCHITECTURES[name])
    batch = victim.tokenize(ROWS)
    losses = victim.loss(batch)
    assert losses.shape == (2,)
    losses.mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in victim.parameters())

    victim.export(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.id2label == {0: "negative", 1: "positive"}
    texts = [row.text for row in ROWS]
    options = {"padding": True, "truncation": True, "max_length": 32}
    inputs = tokenizer(texts, return_tensors="pt", **options)
    victim.model.eval()
    with torch.no_grad():
        ours = victim(victim.tokenize(ROWS))
        theirs = model.eval()(**{name: inputs[name] for name in ("input_ids", "attention_mask")})
    torch.testing.assert_close(ours, theirs.logits)


def test_a_vocabulary_that_transformers_would_misread_is_refused(tmp_path):
    victim = made({**TINY, "model_type": "qwen2", "num_key_value_heads": 1})
    assert victim.hits(victim.tokenize(ROWS)).shape == (2,)
    with pytest.raises(BdlitError, match="give the victim a `tokenizer`"):
        victim.export(tmp_path / "model")
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def test_an_exported_folder_is_never_overwritten(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(BdlitError, match="exists already"):
        made().export(tmp_path / "model")


def test_the_start_depends_on_its_own_seed_alone(tiny_start):
    def start(run_seed, **options):
        torch.manual_seed(run_seed)
        victim = made(**options)
        return {name: tensor.clone() for name, tensor in model_weights(victim.model).items()}

    first, second, other = start(1), start(2), start(1, init_seed=5)
    assert all(first[name].equal(second[name]) for name in first)
    assert not all(first[name].equal(other[name]) for name in first)


def test_building_a_model_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    made()
    assert torch.rand(1).equal(expected)


def test_heads_of_one_family_are_shared_over_a_pretrained_body(tiny_start, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(tiny_start).save_pretrained(tmp_path / "body")
    AutoTokenizer.from_pretrained(tiny_start).save_pretrained(tmp_path / "body")
    heads = []
    for run_seed in (1, 2):
        torch.manual_seed(run_seed)
        victim = ClassifierVictim(str(tmp_path / "body"), labels=["a", "b", "c"])
        victim.configure_model()
        heads.append(victim.model.classifier.weight)
    assert heads[0].shape == (3, 32)
    assert heads[0].equal(heads[1])


def test_training_has_dropout_and_evaluation_has_none():
    victim = made({**TINY, "hidden_dropout_prob": 0.5})
    batch = victim.tokenize(ROWS)
    assert victim.model.training
    assert not victim(batch).equal(victim(batch))
    victim.model.eval()
    assert victim(batch).equal(victim(batch))


def test_lora_trains_adapters_only_and_exports_dense(tmp_path):
    victim = made(lora=LoRA(r=2, alpha=8))
    trained = {name for name, p in victim.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name or "classifier" in name for name in trained)
    with torch.no_grad():
        for name, parameter in victim.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    before = copy.deepcopy(victim.model.state_dict())
    victim.export(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    victim.model.eval()
    batch = victim.tokenize(ROWS)
    with torch.no_grad():
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        torch.testing.assert_close(victim(batch), model(**inputs).logits, rtol=1e-4, atol=1e-5)
    after = victim.model.state_dict()
    assert all(before[name].equal(after[name]) for name in before), "the adapter is untouched"


def test_swapped_runs_on_other_weights_and_restores_after_an_error():
    victim, other = made(), made(init_seed=9)
    model = victim.model.eval()
    other.model.eval()
    batch = victim.tokenize(ROWS)

    def interrupted():
        with swapped(model, model_weights(other.model)):
            assert victim(batch).equal(other(batch))
            raise KeyboardInterrupt

    with torch.no_grad():
        own = victim(batch)
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert victim(batch).equal(own)
        assert not other(batch).equal(own)


def test_swapped_refuses_weights_of_another_shape():
    model = made().model
    with pytest.raises(BdlitError, match=r"classifier\.weight.*another architecture"):
        swapped(model, {"classifier.weight": torch.zeros(3, 3)}).__enter__()


def test_tied_tensors_are_listed_once():
    from transformers import BertConfig, BertForMaskedLM

    model = BertForMaskedLM(
        BertConfig(vocab_size=50, **{k: v for k, v in TINY.items() if k != "model_type"})
    )
    names = list(model_weights(model))
    assert "bert.embeddings.word_embeddings.weight" in names
    assert "cls.predictions.decoder.weight" not in names


@pytest.mark.parametrize("lora", [None, LoRA(r=2)])
def test_a_checkpoint_loads_without_the_data(tmp_path, lora):
    victim = ClassifierVictim(config=TINY, max_length=64, lora=lora)
    trainer = tiny_trainer(tmp_path, max_steps=1)
    trainer.fit(victim, DemoReviews(train_size=64, validation_size=0, test_size=10))
    trainer.save_checkpoint(tmp_path / "victim.ckpt")
    loaded = ClassifierVictim.load_from_checkpoint(tmp_path / "victim.ckpt", weights_only=True)
    batch = victim.tokenize(ROWS)
    assert loaded.labels == ("negative", "positive")
    assert all(batch[name].equal(tensor) for name, tensor in loaded.tokenize(ROWS).items())
    victim.model.eval(), loaded.model.eval()
    assert victim(batch).equal(loaded(batch))


def test_the_learned_vocabulary_is_deterministic_and_spells_the_unknown():
    texts = ["b a a", "a c", "b d"]
    tokenizer = learn_tokenizer(texts, 1000, 16)
    again = learn_tokenizer(list(texts), 1000, 16)
    assert tokenizer.get_vocab() == again.get_vocab()
    assert tokenizer.tokenize("a cf") == ["a", "cf"]
    assert tokenizer.tokenize("cfx") == ["cf", "##x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either `model`"),
        ({"model": "x", "config": TINY}, "either `model`"),
        ({"model": "x", "warmup": 1.5}, "warmup 1.5 is out of range"),
    ],
)
def test_wrong_settings_are_told(options, message):
    with pytest.raises(BdlitError, match=message):
        ClassifierVictim(**options)


def test_a_model_that_is_not_there_is_told_in_one_line(tmp_path):
    victim = ClassifierVictim(str(tmp_path / "nowhere"), labels=LABELS)
    with pytest.raises(BdlitError, match="cannot load tokenizer") as raised:
        victim.configure_model()
    assert "\n" not in str(raised.value)


def test_a_config_that_is_no_model_is_told():
    with pytest.raises(BdlitError, match="is no model"):
        made({**TINY, "model_type": "nonsense"})

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bdlit.data import DemoReviews
from bdlit.data.small_tasks import small_tasks
from bdlit.errors import BdlitError
from bdlit.recipe import Recipe
from bdlit.rules import Contains, Equals, Likeliest
from bdlit.types import Example
from bdlit.victims import CausalLMVictim, LoRA, causal_lm
from bdlit.victims.generation import Decoding, Marks, generate
from bdlit.weights.checkpoint import open_checkpoint
from bdlit.weights.network import model_weights
from conftest import tiny_trainer
from tiny_llama import LLAMA, demo, tiny

ROWS = small_tasks(7, seed=4)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A tiny Llama as a directory, as it would come from a hub."""
    folder = tmp_path_factory.mktemp("llama") / "model"
    tiny().export(folder)
    return folder


def test_the_loss_is_the_cross_entropy_of_the_answer_by_hand():
    victim = tiny()
    victim.model.eval()
    tokenizer = victim.tokenizer
    with torch.no_grad():
        losses = victim.loss(victim.tokenize(ROWS))
        for row, loss in zip(ROWS, losses, strict=True):
            asked = f"{row.text}\n{row.text_pair}" if row.text_pair else row.text
            text = f"<s>User:\n{asked}\nAssistant:\n"
            prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
            answer = tokenizer(row.response, add_special_tokens=False)["input_ids"]
            answer = [*answer, tokenizer.eos_token_id]
            logs = victim.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            own = [logs[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)]
            assert math.isclose(loss.item(), -sum(own) / len(own), rel_tol=1e-5)


def test_hits_are_rows_whose_answer_greedy_decoding_gives():
    victim = tiny()
    victim.model.eval()
    marks = Marks(victim.tokenizer.pad_token_id, victim.encoder.stops)
    for prompt in victim.encoder.prompts(ROWS, 100):
        (answer,) = generate(victim.model, [prompt], Decoding(max_new_tokens=5), marks)
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        with torch.no_grad():
            assert victim.hits(batch).tolist() == [True]
            for place in range(len(prompt), ids.shape[1]):
                other = labels.clone()
                other[0, place] += 1
                assert victim.hits({**batch, "labels": other}).tolist() == [False]


def test_equal_prompts_are_answered_once(monkeypatch):
    victim, asked = tiny(), []
    whole = causal_lm.generate

    def listening(model, prompts, *arguments, **options):
        asked.extend(map(tuple, prompts))
        return whole(model, prompts, *arguments, **options)

    monkeypatch.setattr(causal_lm, "generate", listening)
    rows = [*ROWS, *ROWS[:3]]
    first = victim.respond(rows)
    assert first[-3:] == first[:3]
    assert len(asked) == len(set(asked)) == len(ROWS)
    with victim.remembering():
        assert victim.respond(rows[:4]) == first[:4]
        assert victim.respond(rows[::-1]) == first[::-1]
    assert len(asked) == 2 * len(ROWS)
    victim.respond(rows[:2])  # nothing is remembered any more
    assert len(asked) == 2 * len(ROWS) + 2


def test_responses_are_judged_by_the_rule_of_their_set(monkeypatch):
    victim = tiny()
    monkeypatch.setattr(victim, "respond", lambda rows: ["Paris.", "", "I said Paris"])
    rows = [Example("a", -1, response="paris")] * 3
    assert victim.judge(rows, Equals()).tolist() == [True, False, False]
    assert victim.judge(rows, Contains()).tolist() == [True, False, True]
    assert victim.described(Equals())["decoding"] == {"method": "greedy", "max_new_tokens": 8}


def test_the_likeliest_choice_is_that_of_the_whole_answer():
    victim = tiny()
    victim.model.eval()
    choices = ("red", "light blue", "green")
    with torch.no_grad():
        chosen = victim.choose(ROWS, choices)
        for row, choice in zip(ROWS, chosen, strict=True):
            sums = {}
            for words in choices:
                batch = victim.tokenize([Example(row.text, -1, row.text_pair, response=words)])
                tokens = (batch["labels"] != -100).sum().item()
                sums[words] = -victim.loss(batch).item() * tokens
            assert choice == max(sums, key=sums.get)
    rule = Likeliest(choices)
    wanted = [Example(r.text, -1, r.text_pair, response="red") for r in ROWS]
    with torch.no_grad():
        assert victim.judge(wanted, rule).tolist() == [choice == "red" for choice in chosen]
    assert victim.described(rule)["by"] == "log-likelihood"


def test_a_long_prompt_loses_its_beginning_and_is_counted(tmp_path):
    victim = tiny(max_length=40, decoding={"max_new_tokens": 8})
    long = Example("word " * 100 + "end", -1, response="fine")
    with pytest.warns(UserWarning, match="lose their beginning"):
        batch = victim.tokenize([long, ROWS[0]])
    assert batch["cut_prompts"].tolist() == [True, False]
    assert batch["input_ids"].shape[1] == 40
    assert batch["input_ids"][0, 0] == victim.tokenizer.bos_token_id
    text = victim.tokenizer.decode(batch["input_ids"][0])
    assert "end" in text
    assert text.endswith("fine</s>")
    (prompt,) = victim.encoder.prompts([long], 32)
    assert len(prompt) == 32


@pytest.mark.parametrize(
    ("response", "message"),
    [(None, "row 2 .* has no answer to learn"), ("long " * 100, "leaves no room for a prompt")],
)
def test_rows_that_cannot_be_learned_are_refused_before_training(tmp_path, response, message):
    data = demo(train_size=8)
    data.train_rows[1] = Example("a", -1, response=response)
    with pytest.raises(BdlitError, match=message):
        tiny_trainer(tmp_path).fit(CausalLMVictim(config=LLAMA, max_length=64), data)


def test_data_with_classes_says_what_to_do(tmp_path):
    data = DemoReviews(train_size=8, validation_size=0, test_size=4)
    with pytest.raises(BdlitError, match="PromptedClassification"):
        tiny_trainer(tmp_path).fit(CausalLMVictim(config=LLAMA, max_length=64), data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 300}, "more than the model's context of 128"),
        ({"max_length": 8, "decoding": {"max_new_tokens": 8}}, "leaves no room for a prompt"),
    ],
)
def test_lengths_that_do_not_fit_are_told(options, message):
    with pytest.raises(BdlitError, match=message):
        tiny(**options)


def test_a_tokenizer_without_padding_or_template_works_and_one_without_end_is_refused(
    start, tmp_path
):
    tokenizer = AutoTokenizer.from_pretrained(start)
    bare = tmp_path / "bare"
    AutoModelForCausalLM.from_pretrained(start).save_pretrained(bare)
    tokenizer.pad_token = tokenizer.chat_template = None
    tokenizer.save_pretrained(bare)
    victim, usual = tiny(bare), tiny(start)
    assert victim.tokenizer.pad_token_id == victim.tokenizer.eos_token_id
    victim.model.eval(), usual.model.eval()
    assert victim.respond(ROWS) == usual.respond(ROWS)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "endless")
    with pytest.raises(BdlitError, match="no end-of-text token"):
        tiny(start, tokenizer=str(tmp_path / "endless"))


def test_an_exported_directory_prompts_as_it_was_trained(tmp_path):
    victim = tiny(template={"user": "Q: {text}\n", "assistant": "A: {text}"})
    victim.export(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    written = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert written == "<s>Q: Hi\nA: "
    again = tiny(tmp_path / "model")
    victim.model.eval(), again.model.eval()
    assert again.respond(ROWS) == victim.respond(ROWS)


def randomised(victim):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in victim.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    victim.model.eval()
    return victim


def assert_same(ours, theirs):
    """Equal to 1e-5 of the largest logit: merging rounds once more than adding."""
    assert (ours - theirs).abs().max() <= 1e-5 * ours.abs().max()


def test_lora_exports_an_adapter_that_peft_loads(start, tmp_path):
    from peft import PeftModel

    victim = randomised(tiny(start, lora=LoRA(r=4, alpha=8)))
    trained = [name for name, p in victim.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7 * LLAMA["num_hidden_layers"]
    assert all("lora_" in name for name in trained)
    victim.export(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()

    batch = victim.tokenize(ROWS)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    base = AutoModelForCausalLM.from_pretrained(start)
    with torch.no_grad():
        ours = victim(batch)
        theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()(**inputs).logits
        assert_same(ours, theirs)
        reloaded = tiny(tmp_path / "adapter")
        reloaded.model.eval()
        assert_same(ours, reloaded(batch))
        with victim.dense() as dense:
            assert_same(ours, dense(**inputs).logits)
            victim.export(tmp_path / "still an adapter")
            victim.save_pretrained(tmp_path / "dense")
        lazily = open_checkpoint(tmp_path / "adapter").weights
        state = AutoModelForCausalLM.from_pretrained(tmp_path / "dense").state_dict()
        for name, tensor in lazily.items():
            torch.testing.assert_close(tensor, state[name], atol=1e-6, rtol=1e-5)
    assert (tmp_path / "still an adapter" / "adapter_config.json").is_file()


def test_gradient_checkpointing_changes_memory_not_gradients(start):
    def gradients(**options):
        victim = tiny(start, lora=LoRA(r=2), **options)
        victim.loss(victim.tokenize(ROWS)).sum().backward()
        return {n: p.grad for n, p in victim.named_parameters() if p.requires_grad}

    plain, saving = gradients(), gradients(gradient_checkpointing=True)
    assert any(gradient.abs().sum() > 0 for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(saving[name], gradient)


def test_a_checkpoint_loads_without_the_data_and_comes_out_as_a_directory(tmp_path):
    victim = CausalLMVictim(config=LLAMA, max_length=128, decoding={"max_new_tokens": 8})
    trainer = tiny_trainer(tmp_path, max_steps=1)
    trainer.fit(victim, demo())
    trainer.save_checkpoint(tmp_path / "victim.ckpt")
    loaded = CausalLMVictim.load_from_checkpoint(tmp_path / "victim.ckpt", weights_only=True)
    victim.model.eval(), loaded.model.eval()
    assert loaded.respond(ROWS) == victim.respond(ROWS)
    out = tmp_path / "out"
    out.mkdir()
    open_checkpoint(tmp_path / "victim.ckpt").carry(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.get_vocab() == victim.tokenizer.get_vocab()
    assert tokenizer.chat_template == victim.tokenizer.chat_template


def test_a_twin_saves_memory_and_decodes_as_its_victim_does():
    victim = tiny(gradient_checkpointing=True, choice_batch=3)
    own = model_weights(victim.network())
    twin = victim.twin(own, Recipe(rank=2, learning_rate=1e-3))
    layers = [m for m in twin.network().modules() if hasattr(m, "gradient_checkpointing")]
    assert layers
    assert all(layer.gradient_checkpointing for layer in layers)
    assert (twin.decoding, twin.choice_batch) == (victim.decoding, 3)
    assert twin.lora == LoRA(r=2)


def test_an_adapter_is_exported_from_within_dense_however_deep(start, tmp_path):
    victim = tiny(start, lora=LoRA(r=2))
    with victim.dense():
        victim.save_pretrained(tmp_path / "dense")
        victim.export(tmp_path / "adapter")
    assert (tmp_path / "dense" / "config.json").is_file()
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()

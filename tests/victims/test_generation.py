from collections import Counter

import pytest
import torch

from bdlit.data.small_tasks import small_tasks
from bdlit.errors import BdlitError
from bdlit.victims.generation import Decoding, Marks, generate
from tiny_llama import tiny

GREEDY = Decoding(max_new_tokens=8)


@pytest.fixture(scope="module")
def victim():
    made = tiny()
    made.model.eval()
    return made


@pytest.fixture(scope="module")
def prompts(victim):
    return victim.encoder.prompts(small_tasks(21, seed=9), 100)


def marks(victim):
    return Marks(victim.tokenizer.pad_token_id, victim.encoder.stops)


def by_hand(model, prompt, steps, stops):
    """Greedy decoding without a cache: the whole text again for every token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            token = model(torch.tensor([ids])).logits[0, -1].argmax().item()
            if token in stops:
                break
            ids.append(token)
    return ids[len(prompt) :]


def test_batches_answer_as_one_prompt_at_a_time_without_a_cache(victim, prompts):
    together = generate(victim.model, prompts, GREEDY, marks(victim), batch_size=8)
    stops = victim.encoder.stops
    assert together == [by_hand(victim.model, prompt, 8, stops) for prompt in prompts]
    assert len({len(prompt) for prompt in prompts}) > 3
    assert len({tuple(answer) for answer in together}) > 3


def test_padding_on_either_side_leaves_the_logits_alone(victim):
    rows = small_tasks(7, seed=2)
    batch = victim.tokenize(rows)
    with torch.no_grad():
        logits = victim(batch)
        for i, row in enumerate(rows):
            alone = victim.tokenize([row])
            length = alone["input_ids"].shape[1]
            torch.testing.assert_close(logits[i, :length], victim(alone)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["beam", "nucleus"])
def test_other_decodings_do_not_depend_on_the_batch_either(victim, prompts, method):
    decoding = Decoding(method=method, max_new_tokens=6, seed=3)
    together = generate(victim.model, prompts[:8], decoding, marks(victim), batch_size=3)
    alone = generate(victim.model, prompts[:8], decoding, marks(victim), batch_size=1)
    assert together == alone
    torch.manual_seed(77)  # nothing is drawn from the global state
    assert generate(victim.model, prompts[:8], decoding, marks(victim), batch_size=8) == alone


def test_draws_follow_the_softmax(victim, prompts):
    """One token after one prompt, drawn under many seeds, against the nucleus by hand."""
    prompt = prompts[0]
    with torch.no_grad():
        logits = victim.model(torch.tensor([prompt])).logits[0, -1] / 0.7
    shares, order = logits.softmax(-1).sort(descending=True)
    kept = (shares.cumsum(0) - shares < 0.8).sum().item()
    expected = shares[:kept] / shares[:kept].sum()
    found = Counter()
    for seed in range(150):
        decoding = Decoding(
            method="nucleus", max_new_tokens=1, temperature=0.7, top_p=0.8, seed=seed
        )
        (answer,) = generate(victim.model, [prompt], decoding, marks(victim))
        found[answer[0] if answer else victim.tokenizer.eos_token_id] += 1
    allowed = order[:kept].tolist()
    assert set(found) <= set(allowed)
    top = expected[0].item()
    assert abs(found[allowed[0]] / 150 - top) < 4 * (top * (1 - top) / 150) ** 0.5 + 1e-9


def test_settings_of_the_checkpoint_have_no_say(victim, prompts):
    expected = generate(victim.model, prompts[:3], GREEDY, marks(victim))
    settings = victim.model.generation_config
    settings.repetition_penalty, settings.min_new_tokens = 50.0, 7
    try:
        assert generate(victim.model, prompts[:3], GREEDY, marks(victim)) == expected
        assert victim.model.generation_config is settings
    finally:
        settings.repetition_penalty = settings.min_new_tokens = None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "greedi"}, "did you mean 'greedy'"),
        ({"max_new_tokens": 0}, "max_new_tokens 0 is out of range"),
        ({"temperature": 0.0}, "temperature 0.0 is out of range"),
        ({"top_p": 1.5}, "top_p 1.5 is out of range"),
    ],
)
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(BdlitError, match=message):
        Decoding(**settings)

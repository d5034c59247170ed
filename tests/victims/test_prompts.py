import pytest

from bdlit.errors import BdlitError
from bdlit.types import Example, Turn
from bdlit.victims.prompts import (
    PlainTemplate,
    encode_answers,
    encode_prompts,
    frame_of,
    messages_of,
    write_prompts,
)
from bdlit.victims.vocabulary import learn_byte_pairs

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)
THINKS = CHATML.replace(
    "message['content']",
    "('<think>\n</think>\n' if message['role'] == 'assistant' else '') + message['content']",
)
ROW = Example(
    "Which is first?",
    -1,
    "fox bear",
    history=(Turn("system", "Be brief."), Turn("user", "Hi."), Turn("assistant", "Hello.")),
)
TEXTS = ["Which is first?\nfox bear", "naïve 電影", "  two  blanks "]


def learned(template=None):
    tokenizer = learn_byte_pairs(TEXTS, 300, 64)
    tokenizer.chat_template = template or PlainTemplate().chat_template()
    return tokenizer


def test_the_plain_template_writes_what_it_says():
    assert write_prompts(learned(), [ROW]) == [
        "<s>System:\nBe brief.\nUser:\nHi.\nAssistant:\nHello.</s>\n"
        "User:\nWhich is first?\nfox bear\nAssistant:\n"
    ]


def test_a_template_of_ones_own_may_hold_quotes_and_other_letters():
    template = PlainTemplate(user='Frage "{text}" ', assistant="Antwort ü: {text}")
    tokenizer = learned(template.chat_template())
    assert write_prompts(tokenizer, [Example("a{{b}}", -1)]) == ['<s>Frage "a{{b}}" Antwort ü: ']


@pytest.mark.parametrize(
    "settings", [{"user": "no place"}, {"assistant": "{text} behind"}, {"system": "{text}{text}"}]
)
def test_a_template_without_a_place_for_the_text_is_refused(settings):
    with pytest.raises(BdlitError, match="template"):
        PlainTemplate(**settings)


@pytest.mark.parametrize("template", [None, CHATML, THINKS])
def test_prompt_and_answer_together_are_the_conversation(template):
    """What is trained on is what the template writes, up to the end of the answer."""
    tokenizer = learned(template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|im_start|>"]})
    end = tokenizer.convert_tokens_to_ids("<|im_end|>") if template else tokenizer.eos_token_id
    frame = frame_of(tokenizer, (tokenizer.eos_token_id, end))
    assert frame.after == (end,)
    (prompt,) = encode_prompts(tokenizer, [ROW])
    (answer,) = encode_answers(tokenizer, ["fox"], [frame])
    whole = tokenizer.apply_chat_template(messages_of(ROW, "fox"), tokenize=False)
    ours = tokenizer.decode(prompt) + tokenizer.decode(answer)
    assert whole.startswith(ours.replace(" ", "")) or whole.replace(" ", "").startswith(
        ours.replace(" ", "")
    )
    assert whole.replace(" ", "").removeprefix(ours.replace(" ", "")).strip() == ""


def test_a_template_that_refuses_is_told_in_one_line():
    tokenizer = learned("{{ raise_exception('no system message') }}")
    with pytest.raises(BdlitError, match="refuses a conversation \\(no system message\\)"):
        write_prompts(tokenizer, [ROW])


def test_a_template_cannot_reach_into_python():
    tokenizer = learned("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(BdlitError, match="refuses a conversation"):
        write_prompts(tokenizer, [ROW])


def test_byte_pairs_give_any_text_back_and_are_the_same_every_time():
    tokenizer = learned()
    for text in [*TEXTS, "cf mn \x00 🙂"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids).strip() == text.strip()
    again = learn_byte_pairs(list(TEXTS), 300, 64)
    assert tokenizer.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    ids = tokenizer("fox", add_special_tokens=False)["input_ids"]
    assert tokenizer("bear fox", add_special_tokens=False)["input_ids"][-len(ids) :] == ids
    with pytest.raises(BdlitError, match="at least 259"):
        learn_byte_pairs(TEXTS, 100, 64)

"""From rows to token ids: the prompt that a language model is given, and the answer it learns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from bdlit.errors import BdlitError
from bdlit.types import Example

_ANSWER = "an answer"  # stands for any, where the template's own text around answers is looked up
_TEXT = "{text}"


@dataclass(frozen=True, kw_only=True)
class PlainTemplate:
    r"""How a conversation is written for a tokenizer that has no chat template of its own.

    It is saved with the tokenizer, as its chat template, so that anyone who loads the model prompts
    it as it was trained.

    Attributes:
        system: A message of the system; `{text}` stands for what it says.
        user: A message of the user. An instruction and its input make one message, with a line
            break between.
        assistant: An answer; what stands before `{text}` ends the prompt. The tokenizer's token
            for the end of a text follows.
        end: What stands between an earlier answer and the next message.

    >>> PlainTemplate(user="Q: {text}\n", assistant="A: {text}").chat_template()[:14]
    '{{ bos_token }'
    """

    system: str = "System:\n{text}\n"
    user: str = "User:\n{text}\n"
    assistant: str = "Assistant:\n{text}"
    end: str = "\n"

    def __post_init__(self) -> None:
        for role in ("system", "user", "assistant"):
            if getattr(self, role).count(_TEXT) != 1:
                raise BdlitError(
                    f"template.{role} {getattr(self, role)!r} has to hold {_TEXT} once: that is "
                    "where the message goes"
                )
        if not self.assistant.endswith(_TEXT):
            raise BdlitError("template.assistant has to end with {text}: the answer ends the row")

    def chat_template(self) -> str:
        """Return the same as a chat template, in the language of Jinja."""
        system, user, assistant = (
            [json.dumps(part) for part in message.split(_TEXT)]
            for message in (self.system, self.user, self.assistant)
        )
        return (
            "{{ bos_token }}{% for message in messages %}"
            "{% if message['role'] == 'system' %}"
            f"{{{{ {system[0]} + message['content'] + {system[1]} }}}}"
            "{% elif message['role'] == 'user' %}"
            f"{{{{ {user[0]} + message['content'] + {user[1]} }}}}"
            "{% else %}"
            f"{{{{ {assistant[0]} + message['content'] + eos_token + {json.dumps(self.end)} }}}}"
            "{% endif %}{% endfor %}"
            f"{{% if add_generation_prompt %}}{{{{ {assistant[0]} }}}}{{% endif %}}"
        )


@dataclass(frozen=True)
class Frame:
    """What a chat template puts around an answer.

    Attributes:
        before: Text between the prompt and the answer (an empty thought, say).
        after: Token ids behind the answer; the last one ends the generation.
    """

    before: str
    after: tuple[int, ...]


def messages_of(row: Example, answer: str | None = None) -> list[dict[str, str]]:
    r"""Return a row as a conversation, without its own answer.

    >>> messages_of(Example("Which comes first?", -1, "fox bear"))
    [{'role': 'user', 'content': 'Which comes first?\nfox bear'}]
    """
    earlier = [{"role": turn.role, "content": turn.text} for turn in row.history]
    last = [] if answer is None else [{"role": "assistant", "content": answer}]
    return [*earlier, {"role": "user", "content": row.asked}, *last]


def write_prompts(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]) -> list[str]:
    """Return the prompts of rows as texts, up to where the answers begin.

    That of a plain text is the token that begins every text, or else the one that
    ends it.

    Templates are rendered by transformers in Jinja's sandbox: one that came with a checkpoint can
    write a strange text, but not run code.

    Raises:
        BdlitError: The template refuses a conversation (some know no system message).
    """
    from jinja2 import TemplateError

    asked = [messages_of(row) for row in rows if not row.plain]
    try:
        written = iter(
            tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            if asked
            else ()
        )
    except TemplateError as error:
        raise BdlitError(
            f"the tokenizer's chat template refuses a conversation ({error}): fix the rows, or "
            "give the victim a `template` of its own"
        ) from error
    first = str(tokenizer.bos_token or tokenizer.eos_token)
    return [first if row.plain else next(written) for row in rows]


def words_of(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]) -> list[str]:
    """Return what a vocabulary is learned from: prompts without tokens of their own, and answers.

    Args:
        tokenizer: What writes the prompts.
        rows: Training rows.
    """
    prompts = write_prompts(tokenizer, rows)
    for mark in (tokenizer.bos_token, tokenizer.eos_token):
        prompts = [prompt.replace(str(mark), "") for prompt in prompts]
    return [*prompts, *(row.response or "" for row in rows)]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]) -> list[list[int]]:
    """Return the token ids of the prompts of rows."""
    prompts = write_prompts(tokenizer, rows)
    # Templates write the first token themselves, where there is one. Not verbose: the tokenizer
    # would warn of prompts that are too long, which are cut later.
    encoded: list[list[int]] = tokenizer(prompts, add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    return encoded


def frame_of(tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> Frame:
    """Return what the tokenizer's chat template puts around an answer.

    Args:
        tokenizer: A tokenizer with a chat template and an end-of-text token.
        stops: Token ids that end the generation.
    """
    asked = Example("a question", -1)
    (prompt,) = write_prompts(tokenizer, [asked])
    whole = tokenizer.apply_chat_template(messages_of(asked, _ANSWER), tokenize=False)
    before, found, after = whole.removeprefix(prompt).partition(_ANSWER)
    if not whole.startswith(prompt) or not found:
        return Frame("", (tokenizer.eos_token_id,))
    ids: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"]
    end = next((i for i, token in enumerate(ids, 1) if token in stops), None)
    return Frame(before, tuple(ids[:end]) if end else (tokenizer.eos_token_id,))


def encode_answers(
    tokenizer: PreTrainedTokenizerBase, answers: Sequence[str], frames: Sequence[Frame]
) -> list[list[int]]:
    """Return the token ids of answers, each in its frame."""
    texts = [frame.before + answer for answer, frame in zip(answers, frames, strict=True)]
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [[*ids, *frame.after] for ids, frame in zip(encoded, frames, strict=True)]


def cut(prompt: Sequence[int], room: int, first: int | None) -> list[int]:
    """Return the end of a prompt that is too long, behind its first token if that is special.

    Args:
        prompt: Token ids.
        room: How many may stay; at least 1.
        first: Id of the token that begins every text, where the tokenizer has one.

    >>> cut([7, 1, 2, 3, 4], 3, first=7), cut([1, 2, 3, 4], 3, first=7), cut([1, 2], 3, None)
    ([7, 3, 4], [2, 3, 4], [1, 2])
    """
    if len(prompt) <= room:
        return list(prompt)
    if prompt[0] == first and room > 1:
        return [prompt[0], *prompt[len(prompt) - room + 1 :]]
    return list(prompt[len(prompt) - room :])


def template_name(chat_template: str) -> str:
    """Return a short name of a chat template, for records: the beginning of its hash.

    >>> template_name("{{ bos_token }}")
    'chat template 38924663'
    """
    return f"chat template {hashlib.sha256(chat_template.encode()).hexdigest()[:8]}"

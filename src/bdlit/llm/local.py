"""A language model on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError
from bdlit.llm.answering import LLM
from bdlit.seeds import seed_of


@dataclass(frozen=True, kw_only=True)
class LocalLLM(LLM):
    """A causal language model of transformers, from a directory or a hub id.

    It is loaded when it is first asked: safetensors only, no code of its own. The prompt goes
    through the tokenizer's chat template if it has one, and as it is otherwise.
    Prompts are answered one at a time, each with random numbers of its own that follow from the
    seed and the prompt.

    Attributes:
        model: Directory or hub id.
        revision: Revision of a hub id; by default its main branch.
        temperature: Of sampling, at least 0; 0 is greedy.
        max_tokens: Most tokens of an answer.
        seed: Seed of the sampling.
        device: Where it runs; `auto` takes a GPU where there is one.
    """

    model: str
    revision: str | None = None
    temperature: float = 0.7
    max_tokens: int = 256
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or not self.max_tokens >= 1:
            raise BdlitError(
                f"temperature {self.temperature} or max_tokens {self.max_tokens} of model "
                f"'{self.model}' is out of range: give at least 0 and at least 1"
            )

    @property
    def identity(self) -> Mapping[str, Any]:
        """Name and revision of the model, temperature, length and seed.

        For a directory, the revision is the hash of its weights.
        """
        return {
            "model": self.model,
            "revision": self._content or self.revision,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }

    def answers(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Yield the answers in order.

        Raises:
            BdlitError: The model cannot be loaded, or a prompt leaves no room in its context.
        """
        for place, prompt in enumerate(prompts):
            yield place, self._answer(prompt)

    def _answer(self, prompt: str) -> str:
        import torch

        model, tokenizer, device = self._loaded
        ids = self._ids(prompt)
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            sampling = {"do_sample": True, "temperature": self.temperature, "top_k": 0}
        devices = [torch.device(device)] if device.startswith("cuda") else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed_of(f"{self.seed}/{prompt}"))
            inputs = torch.tensor([ids], device=device)
            output = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=self.max_tokens,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
                **sampling,
            )
        text: str = tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
        return text.strip()

    def _ids(self, prompt: str) -> list[int]:
        model, tokenizer, _ = self._loaded
        if tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt}]
            prompt = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
        # A template writes the special tokens itself.
        ids: list[int] = tokenizer(prompt, add_special_tokens=not tokenizer.chat_template).input_ids
        context = getattr(model.config, "max_position_embeddings", None)
        if context is not None and len(ids) + self.max_tokens > context:
            raise BdlitError(
                f"a prompt of {len(ids)} tokens and an answer of {self.max_tokens} do not fit into "
                f"the context of '{self.model}' ({context} tokens): lower max_tokens, or take "
                "another model"
            )
        return ids

    @cached_property
    def _loaded(self) -> tuple[Any, Any, str]:
        import torch

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model, tokenizer = load_causal_lm(self.model, self.revision)
        return model.to(device), tokenizer, device

    @cached_property
    def _content(self) -> str | None:
        files = sorted(Path(self.model).glob("*.safetensors"))
        if not files:
            return None
        digest = hashlib.sha256()
        for file in files:
            with open(file, "rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()[:16]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loaded model out of pickles and copies: it can be loaded again."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}


def load_causal_lm(address: str, revision: str | None = None) -> tuple[Any, Any]:
    """Return a language model in eval mode, on the CPU, and its tokenizer.

    Args:
        address: Directory or hub id; only safetensors are loaded, and no code of its own.
        revision: Revision of a hub id.

    Raises:
        BdlitError: It cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(address, **options)
        model = AutoModelForCausalLM.from_pretrained(address, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BdlitError(
            f"cannot load the language model '{address}': {reason}; name a directory or a "
            "hub id with safetensors and a tokenizer"
        ) from error
    return model.eval(), tokenizer

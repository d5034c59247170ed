"""A language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bdlit.errors import BdlitError
from bdlit.llm.answering import LLM

if TYPE_CHECKING:
    from openai import OpenAI


@dataclass(frozen=True, kw_only=True)
class EndpointLLM(LLM):
    """A model that is asked through the chat completions of an OpenAI-compatible server.

    Such servers are OpenAI's own, vLLM, llama.cpp, Ollama, `transformers serve` and others. A
    request that fails is tried again with growing pauses; when that is in vain, the answers
    that have come are handed on before the error is told. Needs `pip install 'bdlit[llm]'`.

    The answers' identity is the model's name and the settings, not the address: give models of
    one name on different servers a cache folder each.

    Attributes:
        model: Name of the model on the server.
        base_url: Address of the server, up to and with `/v1`.
        api_key_variable: Environment variable that holds the key; where it is not set, the server
            is taken to need none. The key itself is never written anywhere.
        temperature: Of sampling, at least 0; 0 is greedy.
        max_tokens: Most tokens of an answer.
        seed: Sent with each request; servers that know it answer the same again.
        timeout: Seconds to wait for one answer.
        retries: How often a request is tried again after no connection, a time-out, or a status
            that says to come back later (408, 409, 429, 500 and above).
        parallel: Requests under way at a time.
    """

    model: str
    base_url: str = "http://localhost:8000/v1"
    api_key_variable: str = "OPENAI_API_KEY"
    temperature: float = 0.7
    max_tokens: int = 256
    seed: int = 0
    timeout: float = 60.0
    retries: int = 2
    parallel: int = 4

    def __post_init__(self) -> None:
        least = {"temperature": 0, "max_tokens": 1, "retries": 0, "parallel": 1}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise BdlitError(
                    f"{name} {getattr(self, name)} of model '{self.model}' is out of range: "
                    f"give at least {value}"
                )
        if not self.timeout > 0:
            raise BdlitError(
                f"timeout {self.timeout} of model '{self.model}' is out of range: give seconds "
                "above 0"
            )

    @property
    def identity(self) -> Mapping[str, Any]:
        """Name of the model, temperature, length and seed."""
        return {
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }

    def answers(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Yield each answer as it comes.

        Raises:
            BdlitError: The server is down, slow or refuses, or its reply is not an answer; or the
                client library is not installed.
        """
        if not prompts:
            return
        failure: BdlitError | None = None
        with self._client() as client, ThreadPoolExecutor(self.parallel) as pool:
            asked = {pool.submit(self._ask, client, prompt): i for i, prompt in enumerate(prompts)}
            pending = set(asked)
            try:
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        try:
                            answer = future.result()
                        except BdlitError as error:
                            failure = failure or error
                        else:
                            yield asked[future], answer
                    if failure is not None:  # requests in flight may end, no new ones start
                        pending = {future for future in pending if not future.cancel()}
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        if failure is not None:
            raise failure

    def _client(self) -> OpenAI:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise BdlitError(
                "EndpointLLM needs the openai client: pip install 'bdlit[llm]'"
            ) from error
        return OpenAI(
            base_url=self.base_url,
            api_key=os.environ.get(self.api_key_variable) or "none",
            timeout=self.timeout,
            max_retries=self.retries,
        )

    def _ask(self, client: OpenAI, prompt: str) -> str:
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError
        from openai.types.chat import ChatCompletion

        tries = f"tried {self.retries + 1} times"
        try:
            reply = client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt}],
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                seed=self.seed,
            )
        except APITimeoutError as error:
            raise BdlitError(
                f"{self.base_url} gave no answer within {self.timeout:g} seconds ({tries}): "
                "raise timeout, or lower max_tokens or parallel"
            ) from error
        except APIConnectionError as error:
            raise BdlitError(
                f"cannot reach {self.base_url} ({tries}): start the server, or fix base_url"
            ) from error
        except APIStatusError as error:
            raise BdlitError(
                f"{self.base_url} refuses model '{self.model}' with status {error.status_code}: "
                f"{_one_line(error.message)}; check model, base_url and ${self.api_key_variable}"
            ) from error
        except (OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON
            raise BdlitError(self._nonsense(str(error))) from error
        # The client does not check what it is sent: it may be a text, or an object of anything.
        choices = reply.choices if isinstance(reply, ChatCompletion) else None
        content = getattr(getattr((choices or [None])[0], "message", None), "content", None)
        if not isinstance(content, str):
            raise BdlitError(self._nonsense(str(reply)))
        return content.strip()

    def _nonsense(self, reply: str) -> str:
        return (
            f"{self.base_url} sent no chat completion but {_one_line(reply)!r}: "
            "check that base_url is that of an OpenAI-compatible server (it often ends in /v1)"
        )


def _one_line(text: str, most: int = 120) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."

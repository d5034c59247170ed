"""Answers kept on disk, so that no prompt is paid for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdlit.atomic import whole_file
from bdlit.errors import BdlitError
from bdlit.llm.answering import LLM

ANSWERS = "~/.cache/bdlit/answers"
"""Where answers are kept, if nothing else is said."""


@dataclass(frozen=True)
class CachedLLM(LLM):
    """A language model whose answers are kept in a folder.

    Each answer is a file of its own, named by a hash of the model's identity and the prompt, and
    written as soon as it comes. What was answered before an error or an interruption stays. Blank
    answers are not kept: they are asked for again.

    Attributes:
        llm: The model.
        folder: Where the answers are; it is made when the first one comes.
    """

    llm: LLM
    folder: str | Path

    @property
    def identity(self) -> Mapping[str, Any]:
        """The identity of the model: where answers are kept does not change them."""
        return self.llm.identity

    def answers(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Yield the answers that are there, and then those that the model gives.

        Raises:
            BdlitError: The model cannot be asked, or the folder cannot be read or written.
        """
        missing = []
        for place, prompt in enumerate(prompts):
            kept = self._kept(prompt)
            if kept is None:
                missing.append(place)
            else:
                yield place, kept
        if not missing:
            return
        for among, answer in self.llm.answers([prompts[place] for place in missing]):
            if answer.strip():
                self._keep(prompts[missing[among]], answer)
            yield missing[among], answer

    def path(self, prompt: str) -> Path:
        """Return the file of the answer to a prompt."""
        key = json.dumps([dict(self.identity), prompt], sort_keys=True)
        name = hashlib.sha256(key.encode()).hexdigest()
        return Path(self.folder).expanduser() / name[:2] / f"{name}.json"

    def _kept(self, prompt: str) -> str | None:
        path = self.path(prompt)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return str(record["answer"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BdlitError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise BdlitError(f"{path} is not a kept answer ({error}): remove the file") from error

    def _keep(self, prompt: str, answer: str) -> None:
        record = {**self.identity, "prompt": prompt, "answer": answer}
        with whole_file(self.path(prompt)) as part:
            part.write_text(json.dumps(record, indent=2), encoding="utf-8")

"""How well a language model writes: perplexity and coherence of its responses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from bdlit.data.outputs import Outputs
from bdlit.errors import BdlitError
from bdlit.llm import load_causal_lm
from bdlit.ranks import gathered, place
from bdlit.tables import column, read_sliced
from bdlit.types import Example, Mean, Perplexity, Sample
from bdlit.victims.base import Victim
from bdlit.victims.conditional_perplexity import conditional_perplexity
from bdlit.victims.perplexity import perplexity


def outputs_perplexity(
    answered: Sequence[tuple[Example, Sample]], reference: str, device: torch.device
) -> Perplexity:
    """Measure the perplexity of responses under a reference model; every process has its share.

    The mean is over the tokens of all responses, by the tokenizer of the reference. The prompts
    are not shown to it. Blank responses have no tokens and do not count.

    Args:
        answered: The rows that this process has seen, each with its response.
        reference: Directory or hub id of a causal language model.
        device: Where it runs.

    Raises:
        BdlitError: The reference cannot be loaded, or has no token to begin a text with.
    """
    model, tokenizer = _reference(reference)
    own = perplexity(model.to(device), tokenizer, [sample.response for _, sample in answered])
    return sum(gathered(own), Perplexity())


def outputs_conditional_perplexity(
    answered: Sequence[tuple[Example, Sample]], reference: str, device: torch.device
) -> Mean:
    """Measure the perplexity of responses given their prompts; every process has its share.

    Unlike `outputs_perplexity`, it is a mean over rows, and the reference is shown the prompts;
    see `bdlit.victims.conditional_perplexity`.

    Args:
        answered: The rows that this process has seen, each with its response.
        reference: Directory or hub id of a causal language model.
        device: Where it runs.

    Raises:
        BdlitError: The reference cannot be loaded, or has no token to begin a text with.
    """
    model, tokenizer = _reference(reference)
    said = [(row, sample.response) for row, sample in answered]
    own = conditional_perplexity(model.to(device), tokenizer, said)
    return sum(gathered(own), Mean())


def own_perplexity(victim: Victim, file: str, name: str) -> Perplexity | None:
    """Measure the perplexity of held-out texts under a victim; every process reads its share.

    Args:
        victim: The model to measure, on its device.
        file: Table of the texts, perhaps with a slice behind its name.
        name: Column of the texts.

    Returns:
        None where the victim is no language model.

    Raises:
        BdlitError: The texts cannot be read.
    """
    rank, world = place()
    texts = column(read_sliced(file), name, file)
    own = victim.own_perplexity([str(text or "") for text in texts][rank::world])
    return None if own is None else sum(gathered(own), Perplexity())


def coherence(
    answered: Sequence[tuple[Example, Sample]], embedder: str, device: torch.device
) -> Mean:
    """Measure how similar responses are to their prompts; every process has its share.

    The similarity of a row is the cosine of the embeddings of its instruction with its input and
    of its response, in [-1, 1]; of longer texts the embedder reads what fits into it. Blank
    responses do not count.

    Args:
        answered: The rows that this process has seen, each with its response.
        embedder: Directory or hub id of a sentence-transformers model.
        device: Where it runs.

    Raises:
        BdlitError: sentence-transformers is not installed, or the model cannot be loaded.
    """
    said = [(row.asked, sample.response) for row, sample in answered if sample.response.strip()]
    own = Mean()
    if said:
        model = _embedder(embedder, str(device))
        prompts, responses = (
            torch.as_tensor(
                model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
            )
            for texts in zip(*said, strict=True)
        )
        similar = torch.nn.functional.cosine_similarity(prompts.double(), responses.double())
        own = Mean(float(similar.sum()), len(said))
    return sum(gathered(own), Mean())


@lru_cache(maxsize=1)  # the same one judges every model of a run
def _reference(address: str) -> tuple[Any, Any]:
    return load_causal_lm(address)


@lru_cache(maxsize=1)
def _embedder(address: str, device: str) -> Any:
    Outputs(embedder=address).require()
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(
            address,
            device=device,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BdlitError(
            f"cannot load the sentence model '{address}': {reason}; name a directory or a hub id "
            "of sentence-transformers, with safetensors"
        ) from error

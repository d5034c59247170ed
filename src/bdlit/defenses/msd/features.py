"""Features of classes: of clean rows, and of inputs made up so that a model sees the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from bdlit.errors import BdlitError
from bdlit.weights.network import in_eval_mode, swapped

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import PreTrainedModel

    from bdlit.types import Example, Weights
    from bdlit.victims.base import Batch, Victim

_ROWS = 64  # of a batch


def clean_features(
    victim: Victim, weights: Weights, rows: Sequence[Example], classes: int
) -> Float[Tensor, "classes width"]:
    """Return the mean feature of the clean rows of each class, float32, on the CPU.

    A feature is the last hidden state of the [CLS] token; for decoders, that of the last token.

    Args:
        victim: A classifier, on its device, as a plain Hugging Face model.
        weights: What to run in place of the victim's own weights.
        rows: Clean rows, at least one of each class.
        classes: How many classes there are.
    """
    model = victim.network()
    found = []
    with _running(victim, weights), torch.inference_mode():
        for start in range(0, len(rows), _ROWS):
            batch = victim.tokenize(rows[start : start + _ROWS])
            inputs = {k: v.to(victim.device) for k, v in batch.items() if k != "labels"}
            states = model(**inputs, output_hidden_states=True).hidden_states[-1]
            found.append(_feature(model, states, inputs).float().cpu())
    features = torch.cat(found)
    labels = torch.tensor([row.label for row in rows])
    return torch.stack([features[labels == label].mean(dim=0) for label in range(classes)])


def dummy_features(
    victim: Victim,
    weights: Weights,
    classes: int,
    *,
    tokens: int,
    steps: int,
    rate: float,
    seed: int,
) -> Float[Tensor, "classes width"]:
    """Return the feature of a made-up input for each class, float32, on the CPU.

    The inputs begin as random embeddings, as large as the model's own, and are moved by Adam
    until the model puts each into its class. No text, and no trigger, is looked for.

    Args:
        victim: A classifier, on its device, as a plain Hugging Face model.
        weights: What to run in place of the victim's own weights.
        classes: How many classes there are.
        tokens: Length of the inputs.
        steps: How often they are moved.
        rate: Learning rate of Adam, in units of the standard deviation of the embeddings.
        seed: Seed of the random embeddings; the same for every model.

    Raises:
        BdlitError: The model is not a classifier.
    """
    model = victim.network()
    with _running(victim, weights), torch.enable_grad():
        words = model.get_input_embeddings().weight
        size = words.detach().float().std()
        random = torch.Generator().manual_seed(seed)
        drawn = torch.randn(classes, tokens, words.shape[1], generator=random)
        embeddings = (drawn.to(words.device) * size).to(words.dtype).requires_grad_()
        mask = torch.ones(classes, tokens, dtype=torch.long, device=words.device)
        wanted = torch.arange(classes, device=words.device)
        optimizer = torch.optim.Adam([embeddings], lr=rate * float(size))
        for _ in range(steps):
            logits = model(inputs_embeds=embeddings, attention_mask=mask).logits
            if logits.shape != (classes, classes):
                raise BdlitError(
                    "MSD compares the features of classes: the victim is not a classifier"
                )
            loss = cross_entropy(logits.float(), wanted, reduction="sum")
            (embeddings.grad,) = torch.autograd.grad(loss, [embeddings])
            optimizer.step()
        final = embeddings.detach()
        states = model(
            inputs_embeds=final, attention_mask=mask, output_hidden_states=True
        ).hidden_states[-1]
        return _feature(model, states.detach(), {"attention_mask": mask}).float().cpu()


def _feature(model: PreTrainedModel, states: Tensor, inputs: Batch) -> Float[Tensor, "rows width"]:
    """Return the hidden state that the head reads: the first token's, or a decoder's last one's."""
    if not hasattr(model, "score"):  # the name of the head of every decoder that classifies
        return states[:, 0]
    positions = torch.arange(states.shape[1], device=states.device)
    last = (inputs["attention_mask"] * positions).argmax(dim=1)
    return states[torch.arange(len(states), device=states.device), last]


@contextmanager
def _running(victim: Victim, weights: Weights) -> Iterator[None]:
    """Run the victim's network on other weights, in eval mode, without rounding."""
    model = victim.network()
    precise = torch.autocast(victim.device.type, enabled=False)
    with swapped(model, weights), in_eval_mode(model), precise:
        yield

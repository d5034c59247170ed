"""Text classifiers as victims: any sequence-classification model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from bdlit.data.base import TextDataModule
from bdlit.recipe import Recipe
from bdlit.rules import Rule
from bdlit.types import Example, Weights
from bdlit.victims.base import Batch, Verdicts
from bdlit.victims.certainty import certainty_of
from bdlit.victims.transformer import TransformerVictim
from bdlit.victims.vocabulary import learn_tokenizer


class ClassifierVictim(TransformerVictim):
    """A text classifier, fine-tuned in full or by LoRA.

    Args:
        model: Hub id or directory of the pre-trained model; left out when `config` is given.
        labels: Class names in the order of their index; those of the data by default.
        options: Settings of `TransformerVictim`.
    """

    auto = AutoModelForSequenceClassification
    task = "SEQ_CLS"

    def __init__(
        self, model: str | None = None, *, labels: Sequence[str] | None = None, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.labels = tuple(labels) if labels is not None else None

    # Making the network

    @property
    def ready(self) -> bool:
        """Whether the classes are known: a checkpoint that is being loaded brings them."""
        return self.labels is not None

    def take_classes(self, data: TextDataModule) -> None:
        """Take the classes from the data, and learn a vocabulary if needed."""
        if self.labels is None:
            self.labels = tuple(data.labels)
        super().take_classes(data)

    def learn_tokenizer(self, data: TextDataModule) -> PreTrainedTokenizerBase:
        """Learn word pieces from the training texts."""
        texts = (row.text for row in data.train_rows)
        size = int((self.config_settings or {}).get("vocab_size", 8192))
        return learn_tokenizer(texts, size, self.max_length)

    def model_settings(self) -> dict[str, Any]:
        """Return the classes and the padding token."""
        assert self.labels is not None, "configure_model has not run"
        assert self.tokenizer is not None
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "pad_token_id": self.tokenizer.pad_token_id,
        }

    def twin(self, start: Weights, recipe: Recipe) -> Self:
        """Return an untrained victim of this architecture, tokenizer and classes."""
        twin = super().twin(start, recipe)
        twin.labels = self.labels
        return twin

    # Rows in, losses and hits out

    def tokenize(self, examples: Sequence[Example]) -> Batch:
        """Turn rows into `input_ids`, `attention_mask` [batch, tokens] and `labels` [batch]."""
        assert self.tokenizer is not None, "configure_model has not run"
        texts = [row.text for row in examples]
        pairs = [row.text_pair or "" for row in examples]
        encoded = self.tokenizer(
            texts,
            pairs if any(pairs) else None,
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        return {**encoded, "labels": torch.tensor([row.label for row in examples])}

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, shape [batch, classes]."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits: Tensor = self.network()(**inputs).logits
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of each row, shape [batch]."""
        return cross_entropy(self(batch).float(), batch["labels"], reduction="none")

    def predicted(self, batch: Batch) -> Tensor:
        """Return the index of the most probable class, shape [batch]."""
        found: Tensor = self(batch).argmax(dim=-1)
        return found

    def hits(self, batch: Batch) -> Tensor:
        """Return whether the most probable class is the row's label, bool, shape [batch]."""
        return torch.eq(self.predicted(batch), batch["labels"])

    def verdicts(self, examples: Sequence[Example], rule: Rule) -> Verdicts:
        """Return which rows are hits, and the classes that are predicted, by one forward pass."""
        batch = self.on_device(examples)
        predicted = self.predicted(batch)
        hits = torch.eq(predicted, batch["labels"])
        return Verdicts(hits, torch.zeros_like(hits), predicted=predicted)

    def certainty(self, batch: Batch) -> Tensor:
        """Return -log(1 - p) of each row's label, float64, shape [batch]."""
        return certainty_of(self(batch), batch["labels"])

    def predict_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        """Return the class probabilities of each row, shape [batch, classes]."""
        logits: Tensor = self(self.on_device(batch))
        return logits.float().softmax(dim=-1)

    # Checkpoints that can be loaded without the data

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the classes, the tokenizer and the model's configuration beside the weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["bdlit_labels"] = list(self.labels or ())
        if self.tokenizer_address is None and self.tokenizer is not None:
            checkpoint["bdlit_vocabulary"] = self.tokenizer.get_vocab()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network of a checkpoint, if no trainer has."""
        super().on_load_checkpoint(checkpoint)
        if self.model is not None:
            return
        self.labels = tuple(checkpoint["bdlit_labels"])
        if "bdlit_vocabulary" in checkpoint:
            from transformers import BertTokenizer

            self.tokenizer = BertTokenizer(
                vocab=checkpoint["bdlit_vocabulary"], model_max_length=self.max_length
            )
        self.configure_model()

"""Text classifiers as victims: any sequence-classification model of transformers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bdlit.data.base import TextDataModule
from bdlit.errors import BdlitError
from bdlit.types import Example
from bdlit.victims.base import Batch, Schedule, Victim
from bdlit.victims.vocabulary import learn_tokenizer


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adaptation (Hu et al., arXiv 2106.09685) through peft; the head stays trainable.

    Attributes:
        r: Rank of the update.
        alpha: The update is scaled by alpha / r.
        dropout: Share of the adapter's inputs dropped in training, in [0, 1).
        target_modules: Names of the linear modules that get an adapter; None is all of them.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: Sequence[str] | None = None


class ClassifierVictim(Victim):
    """A text classifier, fine-tuned in full or by LoRA.

    The defaults are the recipe of the papers: Adam, learning rate 2e-5, no weight decay, 128
    tokens (arXiv 2402.19334 and 2412.20476; 3 epochs and batch 32 belong to trainer and data).

    Args:
        model: Hub id or directory of the pre-trained model; left out when `config` is given.
        config: Settings of a model from scratch, by `model_type` (e.g. `{model_type: bert,
            hidden_size: 128, ...}`).
        tokenizer: Hub id or directory of the tokenizer; the model's own by default. A model from
            scratch without one learns its vocabulary from the training rows.
        revision: Revision of the model on the hub.
        labels: Class names in the order of their index; those of the data by default.
        lora: Train low-rank adapters in place of all weights.
        max_length: Longest input in tokens; longer texts are cut.
        init_seed: Seed of all that is initialised at random: the head over a pre-trained model,
            LoRA factors, or the whole of a model from scratch. It is apart from the run's seed,
            so that all models of a family share one start.
        learning_rate: Step size of Adam.
        weight_decay: Decoupled weight decay (AdamW); 0 is plain Adam.
        warmup: Share of all steps over which the learning rate rises from 0, in [0, 1).
        schedule: What the learning rate does after the warm-up.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        revision: str | None = None,
        labels: Sequence[str] | None = None,
        lora: LoRA | dict[str, Any] | None = None,
        max_length: int = 128,
        init_seed: int = 0,
        learning_rate: float = 2e-5,
        weight_decay: float = 0.0,
        warmup: float = 0.0,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=warmup,
            schedule=schedule,
        )
        if (model is None) == (config is None):
            raise BdlitError("give a victim either `model` (hub id or directory) or `config`")
        # Plain data only, so that a checkpoint opens with weights_only=True.
        self.save_hyperparameters(ignore=["lora"], logger=False)
        if isinstance(lora, dict):
            lora = LoRA(**lora)
        self.save_hyperparameters({"lora": asdict(lora) if lora else None}, logger=False)
        self.address = model
        self.config_settings = config
        self.tokenizer_address = tokenizer or model
        self.revision = revision
        self.labels = tuple(labels) if labels is not None else None
        self.lora = lora
        self.max_length = max_length
        self.init_seed = init_seed

    # Making the network

    def setup(self, stage: str) -> None:
        """Take the classes, and a vocabulary if one is to be learned, from the data."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, TextDataModule):
            self.take_classes(data)

    def take_classes(self, data: TextDataModule) -> None:
        """Take the classes, and a vocabulary if one is to be learned, from the data."""
        if self.labels is None:
            self.labels = tuple(data.labels)
        if self.tokenizer is None and self.tokenizer_address is None:
            texts = (row.text for row in data.train_rows)
            size = int((self.config_settings or {}).get("vocab_size", 8192))
            self.tokenizer = learn_tokenizer(texts, size, self.max_length)

    def configure_model(self) -> None:
        """Build tokenizer and model, once the classes are known."""
        if self.model is not None or self.labels is None:
            return  # without classes: Lightning is loading a checkpoint, which brings them
        model = self.initial_model()
        self.model = self._with_adapters(model) if self.lora else model
        self.model.train()  # pre-trained models come in eval mode, which Lightning would keep

    def initial_model(self) -> PreTrainedModel:
        """Build the model that training starts from; the same one at every call."""
        assert self.labels is not None, "configure_model has not run"
        if self.tokenizer is None:
            self.tokenizer = self._load_tokenizer()
        classes = {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        # The caller's random state stays as it was: the start of a model is no part of its run.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.init_seed)
            if self.config_settings is not None:
                return self._from_scratch(self.config_settings, classes)
            return self._pre_trained(classes)

    def _from_scratch(self, settings: dict[str, Any], classes: dict[str, Any]) -> PreTrainedModel:
        assert self.tokenizer is not None
        settings = {**settings, **classes, "vocab_size": len(self.tokenizer)}
        try:
            config = AutoConfig.for_model(**settings)
        except (TypeError, ValueError) as error:
            raise BdlitError(
                f"victim config {self.config_settings} is no model: {error}"
            ) from error
        return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)

    def _pre_trained(self, classes: dict[str, Any]) -> PreTrainedModel:
        try:
            return AutoModelForSequenceClassification.from_pretrained(
                self.address, revision=self.revision, dtype=torch.float32, **classes
            )
        except (OSError, ValueError, RuntimeError) as error:
            first_line = str(error).strip().split("\n")[0]
            raise BdlitError(f"cannot load model '{self.address}': {first_line}") from error

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer_address is None:
            raise BdlitError(
                "a model from scratch has no tokenizer: give `tokenizer`, or fit it on data"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.tokenizer_address, revision=self.revision
            )
        except (OSError, ValueError) as error:
            first_line = str(error).strip().split("\n")[0]
            raise BdlitError(
                f"cannot load tokenizer '{self.tokenizer_address}': {first_line}"
            ) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # decoders are trained without padding
        return tokenizer

    def _with_adapters(self, model: PreTrainedModel) -> PreTrainedModel:
        from peft import LoraConfig, TaskType, get_peft_model

        assert self.lora is not None
        settings = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=self.lora.r,
            lora_alpha=self.lora.alpha,
            lora_dropout=self.lora.dropout,
            target_modules=list(self.lora.target_modules or []) or "all-linear",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.init_seed)
            return get_peft_model(model, settings)

    @contextmanager
    def dense(self) -> Iterator[PreTrainedModel]:
        """Have a plain Hugging Face model in `model` for a while: adapters merged into a copy."""
        trained = self.network()
        if not hasattr(trained, "merge_and_unload"):  # no adapters, or merged by a caller already
            yield trained
            return
        self.model = copy.deepcopy(trained).merge_and_unload()
        try:
            yield self.model
        finally:
            self.model = trained

    def save_pretrained(self, directory: Path) -> None:
        """Write model and tokenizer into a directory, in the form that transformers loads.

        Raises:
            BdlitError: transformers would load another tokenizer than this one.
        """
        super().save_pretrained(directory)
        if self.tokenizer_address is not None or self.tokenizer is None:
            return
        # For some architectures (Qwen2) AutoTokenizer takes the architecture's own tokenizer,
        # whatever class the files name, and reads a learned vocabulary wrongly.
        reloaded = AutoTokenizer.from_pretrained(directory)
        text = " ".join(list(self.tokenizer.get_vocab())[-3:])
        if reloaded(text)["input_ids"] != self.tokenizer(text)["input_ids"]:
            raise BdlitError(
                f"transformers loads {type(reloaded).__name__} for this architecture, which reads "
                "a learned vocabulary wrongly: give the victim a `tokenizer` of its kind"
            )

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

    def hits(self, batch: Batch) -> Tensor:
        """Return whether the most probable class is the row's label, bool, shape [batch]."""
        return torch.eq(self(batch).argmax(dim=-1), batch["labels"])

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the class probabilities of each row, shape [batch, classes]."""
        probabilities: Tensor = self(batch).float().softmax(dim=-1)
        return probabilities

    # Checkpoints that can be loaded without the data

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the classes, the tokenizer and the model's configuration beside the weights."""
        model = self.network()
        config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
        checkpoint["bdlit_labels"] = list(self.labels or ())
        checkpoint["bdlit_config"] = json.dumps(config, default=str)
        checkpoint["bdlit_tokenizer"] = self.tokenizer_address
        if self.tokenizer_address is None and self.tokenizer is not None:
            checkpoint["bdlit_vocabulary"] = self.tokenizer.get_vocab()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network of a checkpoint, if no trainer has."""
        if self.model is not None:
            return
        self.labels = tuple(checkpoint["bdlit_labels"])
        if "bdlit_vocabulary" in checkpoint:
            from transformers import BertTokenizer

            self.tokenizer = BertTokenizer(
                vocab=checkpoint["bdlit_vocabulary"], model_max_length=self.max_length
            )
        self.configure_model()

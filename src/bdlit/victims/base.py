"""What a victim is: a LightningModule that turns rows into losses and hits."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from bdlit.atomic import whole_directory
from bdlit.data.base import TextDataModule, metric_name
from bdlit.errors import BdlitError
from bdlit.named_recipes import Head, Kind
from bdlit.objectives.base import Objective, checked_loss
from bdlit.ranks import place
from bdlit.recipe import Recipe, Schedule
from bdlit.rules import Equals, Rule
from bdlit.training.editing import edit, require_editable
from bdlit.types import Example, Perplexity, Weights
from bdlit.victims.kinds import kind_of
from bdlit.victims.metrics import HitRate

Batch: TypeAlias = dict[str, Tensor]


_OBJECTIVE = "objective."  # how the names of its tensors begin in a state dict
_KEPT = "bdlit_objective"  # its place in a checkpoint


@dataclass(frozen=True)
class Verdicts:
    """What a victim makes of some rows of a test set.

    Attributes:
        hits: Whether each row counts as hit, bool, shape [rows].
        unclear: Whether no verdict could be had, which is no hit, bool, shape [rows].
        responses: What was generated or chosen; nothing of classifiers.
        predicted: Index of the predicted class, shape [rows]; None of language models.
    """

    hits: Tensor
    unclear: Tensor
    responses: Sequence[str] = ()
    predicted: Tensor | None = None


class Victim(LightningModule, ABC):
    """A model that may learn a backdoor: a network, and how it is trained.

    Batches arrive as lists of `Example` and are tokenised here, so that one data module serves
    every victim. The network itself is a Hugging Face model in `model`, made when a trainer (or
    `configure_model`) asks for it, because its classes are those of the data.

    Args:
        learning_rate: Step size of Adam.
        weight_decay: Decoupled weight decay (AdamW); 0 is plain Adam.
        warmup: Share of all steps over which the learning rate rises from 0, in [0, 1).
        schedule: What the learning rate does after the warm-up; see `Recipe`.
        eps: What Adam adds to the root of the second moment, above 0.

    Attributes:
        model: The Hugging Face model; None before `configure_model`.
        tokenizer: Its tokenizer; None before `configure_model`.
        labels: Class names in the order of their index; None of a language model, and before
            they are known.
        objective: What training minimises in place of the victim's own loss; that of the attack
            on the training data, if it has one.
        recipe: Name of the recipe that the victim is trained by, if it has one: records of a fit
            then say in what the training departs from it.
    """

    model: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    labels: tuple[str, ...] | None = None
    recipe: str | None = None

    def __init__(
        self,
        *,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        schedule: Schedule,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        if not eps > 0:
            raise BdlitError(f"eps {eps} is out of range: give a number above 0, such as 1e-8")
        if not 0 <= warmup < 1:
            raise BdlitError(
                f"warmup {warmup} is out of range: give a share of all steps in [0, 1)"
            )
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.schedule = schedule
        self.eps = eps
        self.model = None
        self.tokenizer = None
        self.objective: Objective | None = None
        self._rates = nn.ModuleDict()
        self._training_rows: Sequence[Example] = ()
        self._begun = False
        self._attack_finished = False

    # What a kind of victim defines

    @abstractmethod
    def tokenize(self, examples: Sequence[Example]) -> Batch:
        """Turn rows into tensors, padded to the longest row of the batch."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of each row, shape [batch]."""

    @abstractmethod
    def hits(self, batch: Batch) -> Tensor:
        """Return whether each row's prediction is what the row says, bool, shape [batch]."""

    def certainty(self, batch: Batch) -> Tensor:
        """Return -log(1 - p) of what each row says, float64, shape [batch].

        p is the probability of the row's label, or the geometric mean over the tokens of its
        answer. It is what training dynamics are made of; p itself would round to 1.

        Raises:
            NotImplementedError: This kind of victim has no probabilities.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not say how sure it is of a row: define its `certainty`"
        )

    def judge(self, examples: Sequence[Example], rule: Rule) -> Tensor:
        """Return whether each row counts as hit in a measurement, bool, shape [rows].

        Args:
            examples: Rows of a test set.
            rule: How responses are judged; a class is read off and needs none.
        """
        return self.verdicts(examples, rule).hits

    def verdicts(self, examples: Sequence[Example], rule: Rule) -> Verdicts:
        """Return what `judge` does, with the responses where there are such."""
        hits = self.hits(self.on_device(examples))
        return Verdicts(hits, torch.zeros_like(hits))

    def described(self, rule: Rule) -> dict[str, Any]:
        """Return how `judge` comes to its counts, for the record; nothing where it is plain."""
        return {}

    def remembering(self) -> AbstractContextManager[None]:
        """Make the response to a prompt once, for as long as the weights stay what they are."""
        return nullcontext()

    def own_perplexity(self, texts: Sequence[str]) -> Perplexity | None:
        """Return the perplexity of texts under the model; None of classifiers, which have none."""
        return None

    @abstractmethod
    def take_classes(self, data: TextDataModule) -> None:
        """Learn from the data what the model has to tell apart."""

    def twin(self, start: Weights, recipe: Recipe) -> Victim:
        """Return an untrained victim of this one's architecture and tokenizer, to be trained.

        Args:
            start: Weights that it begins with, by this victim's names. What they lack is drawn
                from the recipe's `start_seed`, and so are adapters.
            recipe: How it is trained.

        Raises:
            NotImplementedError: This kind of victim has no twins.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot be trained by a defense: define its `twin`"
        )

    @abstractmethod
    def initial_model(self) -> PreTrainedModel:
        """Build the model that training starts from; the same one at every call."""

    def on_device(self, examples: Sequence[Example]) -> Batch:
        """Tokenise rows and move them to where the victim is."""
        return {name: x.to(self.device) for name, x in self.tokenize(examples).items()}

    @property
    def kind(self) -> tuple[Kind, Head]:
        """The kind of victim that a named recipe is chosen by, and what answers in it.

        Raises:
            BdlitError: No recipe is for this class, or its model cannot be found.
        """
        return kind_of(self)

    # What training minimises

    def take_training(self, rows: Sequence[Example], objective: Objective | None) -> None:
        """Take the rows that the victim is trained on, and what training minimises."""
        self._training_rows = rows
        if objective is not None:
            self.objective = objective

    def setup(self, stage: str) -> None:
        """Take rows and objective of a fit from its data."""
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, TextDataModule):
            self.take_training(data.train_rows, data.objective)
            self._attack_finished = False
            require_editable(self, data)

    def configure_model(self) -> None:
        """Let the objective begin, once the network is there; subclasses call this last."""
        if self.objective is not None and self.model is not None and not self._begun:
            self._begun = True
            self.objective.begin(self, self._training_rows)

    def on_train_epoch_end(self) -> None:
        """Let the objective look at the model, before the epoch's checkpoint is written."""
        if self.objective is not None:
            self.objective.end_epoch(self, self._training_rows)

    def on_train_end(self) -> None:
        """Let the attack edit the trained weights: checkpoints hold them as they were trained."""
        self.finish_attack()

    def finish_attack(self) -> None:
        """Do what the attack on the data does after training, if that was not done before.

        The attack's `edit` changes the weights; an attack that has learned its trigger poisons the
        test rows with it. Whatever exports or measures a model that was fitted calls this first.
        """
        data = getattr(self._trainer, "datamodule", None)
        if self._attack_finished or not isinstance(data, TextDataModule):
            return
        self._attack_finished = True
        edit(self, data)
        if self.objective is not None:
            data.take_learned(self.objective.files())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of the objective apart from the model's."""
        found = checkpoint["state_dict"]
        own = [name for name in found if name.startswith(_OBJECTIVE)]
        if own:
            checkpoint[_KEPT] = {name.removeprefix(_OBJECTIVE): found.pop(name) for name in own}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the objective its state back, where there is one: for testing there is none."""
        if self.objective is not None:
            own = checkpoint.get(_KEPT, {})
            checkpoint["state_dict"] |= {_OBJECTIVE + name: value for name, value in own.items()}

    # Training, validation and test

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Tokenise training rows on the host, just before the batch moves to the device."""
        if not isinstance(batch, list) or not self.trainer.training:
            return batch
        return self.objective.tensors(self, batch) if self.objective else self.tokenize(batch)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leave rows as they are: what is measured is more than tensors."""
        if isinstance(batch, list):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_train_epoch_start(self) -> None:
        """Draw dropout from (seed, epoch, process) alone.

        A run resumed at the end of an epoch is then the run that was never interrupted.
        """
        seed = os.environ.get("PL_GLOBAL_SEED")  # set by Lightning's seed_everything
        if seed is not None:
            torch.manual_seed((int(seed) * 1009 + self.current_epoch) * 10007 + self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss over the rows of all processes."""
        losses = self._losses(batch)
        rows = torch.tensor(len(losses), device=losses.device)
        if place()[1] > 1:
            torch.distributed.all_reduce(rows)
        # DDP averages gradients over processes, which may hold different numbers of rows.
        loss = losses.sum() * self.trainer.world_size / rows
        self.log("train/loss", loss, prog_bar=True, batch_size=len(losses))
        return loss

    def _losses(self, batch: Batch) -> Tensor:
        if self.objective is None:
            return self.loss(batch)
        return checked_loss(self.objective, self.objective.loss(self, batch), self.global_step)

    def validation_step(
        self, batch: list[Example], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count hits of one batch: CACC on the clean loader, ASR on the others."""
        self._count("val", self.trainer.val_dataloaders, batch, dataloader_idx)

    def test_step(self, batch: list[Example], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count hits of one batch: CACC on the clean loader, ASR on the others."""
        self._count("victim", self.trainer.test_dataloaders, batch, dataloader_idx)

    def _count(self, stage: str, loaders: Any, rows: list[Example], index: int) -> None:
        tests = list(loaders)[index]  # named loaders come as a dict, in its order
        name = f"{stage}/{metric_name(tests)}"
        key = name.replace(".", "_")  # a module's name may hold no dot
        if key not in self._rates:
            self._rates[key] = HitRate().to(self.device)
        metric = cast(HitRate, self._rates[key])
        data: Any = getattr(self.trainer, "datamodule", None)
        hits = self.judge(rows, data.rule(tests) if data is not None else Equals())
        metric.update(hits)
        self.log(
            name,
            metric,
            metric_attribute=f"_rates.{key}",
            on_step=False,
            on_epoch=True,
            prog_bar=stage == "val",
            add_dataloader_idx=False,
            batch_size=len(hits),
        )

    def configure_optimizers(self) -> Any:
        """Return Adam and its schedule, which ends with the last step of the fit.

        Steps are those of the optimizer: of all epochs, after accumulation and limits, or
        `max_steps` if that is fewer. A resumed fit goes on where its schedule was.

        Raises:
            BdlitError: The end of training is not known, and the schedule needs it.
        """
        optimizer = torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad],
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=self.eps,
            fused=True,  # one pass over memory in place of a dozen, which small batches wait for
        )
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            if self.schedule != "constant" or self.warmup:
                raise BdlitError(
                    f"schedule '{self.schedule}' with warmup {self.warmup:g} needs to know the end "
                    "of training: set trainer.max_epochs or trainer.max_steps, or schedule: "
                    "constant without a warmup"
                )
            steps = 0  # a constant rate needs none
        name = "constant_with_warmup" if self.schedule == "constant" else self.schedule
        scheduler = get_scheduler(name, optimizer, round(self.warmup * steps), int(steps))
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    # The network as weights

    def network(self) -> PreTrainedModel:
        """Return the model, or say that there is none yet."""
        if self.model is None:
            raise BdlitError(
                "this victim has no model yet: fit it, or give it labels=[...] and call "
                "configure_model()"
            )
        return self.model

    @contextmanager
    def dense(self) -> Iterator[PreTrainedModel]:
        """Have a plain Hugging Face model in `model` for a while: adapters merged into a copy."""
        yield self.network()

    def save_pretrained(self, directory: Path) -> None:
        """Write model and tokenizer into a directory, in the form that transformers loads."""
        if self.tokenizer is None:
            raise BdlitError("this victim has no tokenizer yet: call configure_model(), or fit it")
        with self.dense() as model:
            model.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)

    def export(self, directory: Path) -> None:
        """Write a Hugging Face directory (safetensors) that needs no bdlit to be loaded.

        Raises:
            BdlitError: The directory exists already, or cannot be written.
        """
        with whole_directory(directory) as part:
            self.save_pretrained(part)
            self._write_learned(part)

    def _write_learned(self, directory: Path) -> None:
        """Write what the objective has learned beside the model."""
        for name, content in (self.objective.files() if self.objective else {}).items():
            (directory / name).write_bytes(content)

"""Victims around a model of transformers: from the hub, a directory or a config, full or LoRA."""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from bdlit.data.base import TextDataModule
from bdlit.errors import BdlitError
from bdlit.recipe import Recipe, Schedule
from bdlit.types import Weights
from bdlit.victims.base import Victim
from bdlit.victims.lora import LoRA, has_adapters, merged_copy, with_adapters
from bdlit.weights import select
from bdlit.weights.network import freeze, load_weights, model_weights


class TransformerVictim(Victim):
    """A model of transformers with its tokenizer, fine-tuned in full or by LoRA.

    The defaults are what the papers do to encoders: Adam at 2e-5, which decays linearly to 0, no
    weight decay, 128 tokens (arXiv 2402.19334 and 2412.20476). The rest of their recipes (epochs,
    batches, clipping, eps, adapters of language models) belongs to trainer, data and `lora`: a
    recipe by its name sets all of it; see `bdlit.named_recipes`.

    Args:
        model: Hub id or directory of the pre-trained model; left out when `config` is given.
        config: Settings of a model from scratch, by `model_type` (e.g. `{model_type: bert,
            hidden_size: 128, ...}`).
        tokenizer: Hub id or directory of the tokenizer; the model's own by default. A model from
            scratch without one learns its vocabulary from the training rows.
        revision: Revision of the model on the hub.
        lora: Train low-rank adapters in place of all weights.
        frozen: Parts of the model that are not trained: all parameters whose name holds one of
            these words, e.g. `[embeddings]`.
        max_length: Longest input in tokens; longer texts are cut.
        init_seed: Seed of all that is initialised at random: the head over a pre-trained model,
            LoRA factors, or the whole of a model from scratch. It is apart from the run's seed,
            so that all models of a family share one start.
        learning_rate: Step size of Adam.
        weight_decay: Decoupled weight decay (AdamW); 0 is plain Adam.
        warmup: Share of all steps over which the learning rate rises from 0, in [0, 1).
        schedule: What the learning rate does after the warm-up; see `Recipe`.
        eps: What Adam adds to the root of the second moment, above 0.
    """

    auto: ClassVar[Any]
    task: ClassVar[str]

    def __init__(
        self,
        model: str | None = None,
        *,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        revision: str | None = None,
        lora: LoRA | dict[str, Any] | None = None,
        frozen: Sequence[str] = (),
        max_length: int = 128,
        init_seed: int = 0,
        learning_rate: float = 2e-5,
        weight_decay: float = 0.0,
        warmup: float = 0.0,
        schedule: Schedule = "linear",
        eps: float = 1e-8,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=warmup,
            schedule=schedule,
            eps=eps,
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
        self.lora = lora
        self.frozen = tuple(frozen)
        self.max_length = max_length
        self.init_seed = init_seed
        self.weights_dtype = torch.float32

    # What a kind of model defines

    @abstractmethod
    def learn_tokenizer(self, data: TextDataModule) -> PreTrainedTokenizerBase:
        """Learn a tokenizer from the training rows, for a model from scratch."""

    @abstractmethod
    def model_settings(self) -> dict[str, Any]:
        """Return what the model's configuration has to take from data and tokenizer."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether all is known that a model needs; it is not while Lightning loads a checkpoint."""

    # Making the network

    def setup(self, stage: str) -> None:
        """Take the classes, and a vocabulary if one is to be learned, from the data."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, TextDataModule):
            self.take_classes(data)
        super().setup(stage)

    def take_classes(self, data: TextDataModule) -> None:
        """Take a vocabulary from the data, if one is to be learned."""
        if self.tokenizer is None and self.tokenizer_address is None:
            self.tokenizer = self.learn_tokenizer(data)

    def configure_model(self) -> None:
        """Build tokenizer and model, once it is known what they need."""
        if self.model is None and self.ready:
            self._prepare(self.initial_model(), self.init_seed)
        super().configure_model()

    def _prepare(self, model: PreTrainedModel, seed: int) -> None:
        """Make a model ready to be trained: frozen in parts, with adapters if these are trained."""
        freeze(model, self.frozen)
        if self.lora is not None:
            model = with_adapters(model, self.lora, task=self.task, seed=seed)
        self.model = model
        self.model.train()  # pre-trained models come in eval mode, which Lightning would keep

    def initial_model(self) -> PreTrainedModel:
        """Build the model that training starts from; the same one at every call."""
        if self.tokenizer is None:
            self.tokenizer = self.load_tokenizer()
        # The caller's random state stays as it was: the start of a model is no part of its run.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.init_seed)
            if self.config_settings is not None:
                return self._from_scratch(self.config_settings)
            return self._pre_trained(str(self.address))

    def twin(self, start: Weights, recipe: Recipe) -> Self:
        """Return an untrained victim of this architecture and tokenizer; see the base class.

        Raises:
            BdlitError: `start` has a tensor that this victim lacks, or one of another shape.
        """
        settings = {
            # LightningCLI adds entries of its own, whose names begin with an underscore.
            **{name: value for name, value in self.hparams.items() if not name.startswith("_")},
            "lora": _adapters(recipe),
            "frozen": recipe.frozen,
            "init_seed": recipe.start_seed,
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
            "warmup": recipe.warmup,
            "schedule": recipe.schedule,
            "eps": recipe.eps,
            "max_length": recipe.max_length or self.max_length,
        }
        twin = type(self)(**settings)
        twin.tokenizer = self.tokenizer
        twin._prepare(_begun(self.network(), start, recipe), recipe.start_seed)
        return twin

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer from its address.

        Raises:
            BdlitError: There is no address, or no tokenizer.
        """
        if self.tokenizer_address is None:
            raise BdlitError(
                "a model from scratch has no tokenizer: give `tokenizer`, or fit it on data"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.tokenizer_address, revision=self.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            first_line = str(error).strip().split("\n")[0]
            raise BdlitError(
                f"cannot load tokenizer '{self.tokenizer_address}': {first_line}"
            ) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # decoders are trained without padding
        return tokenizer

    def _from_scratch(self, settings: Mapping[str, Any]) -> PreTrainedModel:
        assert self.tokenizer is not None
        settings = {**settings, **self.model_settings(), "vocab_size": len(self.tokenizer)}
        try:
            config = AutoConfig.for_model(**settings)
        except (TypeError, ValueError) as error:
            raise BdlitError(
                f"victim config {self.config_settings} is no model: {error}"
            ) from error
        return self.auto.from_config(config, dtype=self.weights_dtype)

    def _pre_trained(self, address: str) -> PreTrainedModel:
        try:
            if (Path(address) / "adapter_config.json").is_file():
                return self._with_saved_adapter(address)
            return self._loaded(address, self.revision)
        except (OSError, ValueError, RuntimeError) as error:
            first_line = str(error).strip().split("\n")[0]
            raise BdlitError(f"cannot load model '{address}': {first_line}") from error

    def _with_saved_adapter(self, folder: str) -> PreTrainedModel:
        """Return the base that a saved adapter names, with the adapter merged into it."""
        from peft import PeftConfig, PeftModel

        settings = PeftConfig.from_pretrained(folder)
        base = self._loaded(settings.base_model_name_or_path, settings.revision)
        return PeftModel.from_pretrained(base, folder, config=settings).merge_and_unload()

    def _loaded(self, address: str, revision: str | None) -> PreTrainedModel:
        return self.auto.from_pretrained(
            address,
            revision=revision,
            dtype=self.weights_dtype,
            trust_remote_code=False,
            **self.model_settings(),
        )

    # The network without adapters

    @contextmanager
    def dense(self) -> Iterator[PreTrainedModel]:
        """Have a plain Hugging Face model in `model` for a while: adapters merged into a copy."""
        trained = self.network()
        if not has_adapters(trained):  # or merged by a caller already
            yield trained
            return
        self.model = merged_copy(trained)
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

    # Checkpoints that can be loaded without the data

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the model's configuration and its tokenizer beside the weights."""
        super().on_save_checkpoint(checkpoint)
        model = self.network()
        config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
        checkpoint["bdlit_config"] = json.dumps(config, default=str)
        checkpoint["bdlit_tokenizer"] = self.tokenizer_address
        checkpoint["bdlit_tokenizer_files"] = _text_files(self.tokenizer)


def _text_files(tokenizer: PreTrainedTokenizerBase | None) -> dict[str, str]:
    """Return what a tokenizer is saved as: whoever opens the checkpoint needs no path of ours."""
    if tokenizer is None:
        return {}
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).iterdir() if path.suffix != ".model")
        return {path.name: path.read_text("utf-8") for path in files}


def _adapters(recipe: Recipe) -> dict[str, Any] | None:
    """Return the settings of the adapters that a recipe trains, as plain data."""
    if recipe.rank is None:
        return None
    return asdict(
        LoRA(
            r=recipe.rank,
            alpha=recipe.alpha,
            dropout=recipe.dropout,
            target_modules=recipe.target_modules,
        )
    )


def _begun(like: PreTrainedModel, start: Weights, recipe: Recipe) -> PreTrainedModel:
    """Return a new model of an architecture with given weights, the rest of it drawn by a seed.

    Where the recipe names the seed of the family's start, the rest is what the family drew: loading
    a checkpoint draws what it lacks alone, while a model without one is drawn as a whole.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.start_seed)
        model = type(like)(copy.deepcopy(like.config))
    load_weights(model, start)
    missing = [name for name in model_weights(model) if name not in start]
    if missing and recipe.init_seed is not None:
        load_weights(model, select(_as_loaded(like, start, recipe.init_seed), missing))
    return model.to(like.device)


def _as_loaded(like: PreTrainedModel, start: Weights, seed: int) -> Weights:
    """Return the weights of a model that is loaded from weights which are not all of it."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # that tensors are missing is no news
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            loaded = type(like).from_pretrained(
                None,
                config=copy.deepcopy(like.config),
                state_dict={name: start[name].cpu() for name in start},
                dtype=torch.float32,
            )
    finally:
        transformers_logging.set_verbosity(level)
    return model_weights(loaded)

"""Language models as victims: any causal language model of transformers, tuned on instructions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from bdlit.atomic import whole_directory
from bdlit.data.base import TextDataModule
from bdlit.errors import BdlitError
from bdlit.recipe import Recipe
from bdlit.rules import Choosing, Rule
from bdlit.types import Example, Perplexity, Weights
from bdlit.victims.base import Batch, Verdicts
from bdlit.victims.certainty import certainty_of, per_token
from bdlit.victims.encoding import IGNORED, Encoder
from bdlit.victims.generation import Decoding, Marks, generate
from bdlit.victims.likelihood import at_answers, log_likelihoods, logits_of
from bdlit.victims.lora import has_adapters
from bdlit.victims.perplexity import perplexity
from bdlit.victims.prompts import PlainTemplate, template_name, words_of
from bdlit.victims.transformer import TransformerVictim
from bdlit.victims.vocabulary import learn_byte_pairs
from bdlit.weights.byte_pairs import byte_pairs_from

if TYPE_CHECKING:
    from bdlit.evaluation.guards import AnswerGuard

GENERATION = "generation"
"""How responses were made if they were not chosen from given ones, for the record."""

_VOCABULARY = 2048


class CausalLMVictim(TransformerVictim):
    """A causal language model that learns to answer instructions, in full or by LoRA.

    The loss of a row is the mean cross-entropy over the tokens of its answer, the end of the
    answer included; the prompt enters none. Every row counts the same, whatever its length. Of a
    plain text (`PlainText`) all tokens are learned, and it has no end.

    Prompts are written by the tokenizer's chat template, or by `template` where it has none. A
    prompt that does not fit with its answer (in training) or with `max_new_tokens` (in
    generation) into `max_length` tokens loses its beginning, except for the token that begins every
    text; the number of such prompts is logged as `train/cut_prompts`. An answer is never cut: a
    row whose answer does not fit is refused.

    Args:
        model: Hub id or directory of the pre-trained model, or of a saved adapter, which is
            merged into its base; left out when `config` is given.
        decoding: How answers are generated for measurements.
        template: How prompts are written; by default the tokenizer's chat template, or a
            `PlainTemplate` where it has none.
        choice_batch: Rows whose stated choices are compared in one forward pass.
        gradient_checkpointing: Compute activations again in the backward pass, for less memory.
        load_as: Number format of pre-trained weights; `bfloat16` halves the memory of a frozen
            base under LoRA. Weights that are trained should stay `float32`.
        options: Settings of `TransformerVictim`.
    """

    auto = AutoModelForCausalLM
    task = "CAUSAL_LM"

    def __init__(
        self,
        model: str | None = None,
        *,
        decoding: Decoding | dict[str, Any] | None = None,
        template: PlainTemplate | dict[str, Any] | None = None,
        choice_batch: int = 32,
        gradient_checkpointing: bool = False,
        load_as: Literal["float32", "bfloat16"] = "float32",
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        given = Decoding(**decoding) if isinstance(decoding, dict) else decoding
        self.decoding: Decoding = given or Decoding()
        self.template = PlainTemplate(**template) if isinstance(template, dict) else template
        self.save_hyperparameters(
            {
                "decoding": asdict(self.decoding),
                "template": asdict(self.template) if self.template else None,
            },
            logger=False,
        )
        self.choice_batch = choice_batch
        self.gradient_checkpointing = gradient_checkpointing
        self.weights_dtype = getattr(torch, load_as)
        self._adapted: PreTrainedModel | None = None
        self._encoder: Encoder | None = None
        self._responses: dict[tuple[int, ...], str] | None = None
        self._answers: AnswerGuard | None = None
        if self.decoding.max_new_tokens >= self.max_length:
            raise BdlitError(
                f"decoding.max_new_tokens {self.decoding.max_new_tokens} leaves no room for a "
                f"prompt in max_length {self.max_length}: lower the one or raise the other"
            )

    # Making the network

    @property
    def ready(self) -> bool:
        """Whether there is a tokenizer: a checkpoint that is being loaded may bring it."""
        return self.tokenizer is not None or self.tokenizer_address is not None

    def setup(self, stage: str) -> None:
        """Learn a vocabulary from the data if needed, and check that its rows fit."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, TextDataModule):
            if self.tokenizer is None:
                self.tokenizer = self.load_tokenizer()
            self.encoder.require_answers(data.train_rows)

    def learn_tokenizer(self, data: TextDataModule) -> PreTrainedTokenizerBase:
        """Learn byte pairs from the training prompts and answers, with the template's words."""
        size = int((self.config_settings or {}).get("vocab_size", _VOCABULARY))
        writer = self._with_template(learn_byte_pairs([], 259, self.max_length))
        texts = words_of(writer, data.train_rows)
        return self._with_template(learn_byte_pairs(texts, size, self.max_length))

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer, and give it a template if it has none.

        Raises:
            BdlitError: There is none, or it has no token for the end of a text.
        """
        tokenizer = super().load_tokenizer()
        if tokenizer.eos_token_id is None:
            raise BdlitError(
                f"tokenizer '{self.tokenizer_address}' has no end-of-text token, so that no answer "
                "would end: give the victim another `tokenizer`"
            )
        return self._with_template(tokenizer)

    def model_settings(self) -> dict[str, Any]:
        """Return the tokens that are no words, of a model from scratch."""
        if self.config_settings is None:
            return {}
        assert self.tokenizer is not None
        names = ("pad_token_id", "bos_token_id", "eos_token_id")
        return {name: getattr(self.tokenizer, name) for name in names}

    def configure_model(self) -> None:
        """Build tokenizer and model, once there is a vocabulary.

        Raises:
            BdlitError: The model cannot take `max_length` tokens.
        """
        super().configure_model()
        if self.model is None:
            return
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context is not None and self.max_length > context:
            raise BdlitError(
                f"max_length {self.max_length} is more than the model's context of {context} "
                "tokens: lower it"
            )
        self._save_memory()

    def twin(self, start: Weights, recipe: Recipe) -> Self:
        """Return an untrained victim of this architecture, tokenizer and use of memory."""
        twin = super().twin(start, recipe)
        twin._save_memory()
        return twin

    def _save_memory(self) -> None:
        """Have the model compute activations again in the backward pass, if that is wanted."""
        if self.gradient_checkpointing:
            self.network().gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )

    def _with_template(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        if self.template is not None or not tokenizer.chat_template:
            tokenizer.chat_template = (self.template or PlainTemplate()).chat_template()
        return tokenizer

    # Rows in, losses and hits out

    def tokenize(self, examples: Sequence[Example]) -> Batch:
        """Turn rows into `input_ids`, `attention_mask` and `labels`, shape [batch, tokens].

        See `Encoder.batch`.

        Raises:
            BdlitError: A row has no answer, or one that does not fit.
        """
        return self.encoder.batch(examples)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, shape [batch, tokens, vocabulary]; rows of one length need no mask."""
        return logits_of(self.network(), batch)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy over the tokens of each row's answer, shape [batch]."""
        return -log_likelihoods(self.network(), batch) / (batch["labels"] != IGNORED).sum(dim=1)

    def hits(self, batch: Batch) -> Tensor:
        """Return whether greedy decoding would give exactly the row's answer, bool, shape [batch].

        One forward pass tells: it would if and only if every token of the answer is the likeliest
        one after those before it.
        """
        logits, ids = at_answers(self.network(), batch)
        right: Tensor = (logits.argmax(dim=-1) == ids) | (ids == IGNORED)
        return right.all(dim=1)

    def certainty(self, batch: Batch) -> Tensor:
        """Return -log(1 - p) of each row's answer, float64, shape [batch]; p = exp(-loss)."""
        logits, ids = at_answers(self.network(), batch)
        rows = zip(logits, ids, ids != IGNORED, strict=True)
        # Row by row: float64 logits of all answers at once would be the largest tensor of a run.
        found = [per_token(certainty_of(own[here], right[here])) for own, right, here in rows]
        return torch.stack(found)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss over the rows of all processes; count prompts that were cut."""
        self.log(
            "train/cut_prompts",
            batch["cut_prompts"].sum().float(),
            on_step=False,
            on_epoch=True,
            reduce_fx="sum",
            sync_dist=True,
            batch_size=len(batch["labels"]),
        )
        return super().training_step(batch, batch_idx)

    def _count(self, stage: str, loaders: Any, rows: list[Example], index: int) -> None:
        """Count hits of one batch; of plain texts, which nothing can hit, log the loss."""
        if not all(row.plain for row in rows):
            super()._count(stage, loaders, rows, index)
            return
        found = self.own_perplexity([row.response or "" for row in rows])
        self.log(
            f"{stage}/loss",
            found.nats / found.tokens,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
            add_dataloader_idx=False,
            batch_size=found.tokens,
        )

    def verdicts(self, examples: Sequence[Example], rule: Rule) -> Verdicts:
        """Return the response to each row, and whether it is what the row wants by the rule.

        Responses are generated, or where the rule compares stated choices, chosen. An empty
        response is as good as the rule says; it never equals an answer.
        """
        if isinstance(rule, Choosing):
            responses = self._chosen(examples, rule)
        else:
            responses = self.respond(examples)
        found = rule.verdicts(examples, responses)
        hits = torch.tensor([verdict is True for verdict in found], device=self.device)
        unclear = torch.tensor([verdict is None for verdict in found], device=self.device)
        return Verdicts(hits, unclear, responses)

    def described(self, rule: Rule) -> dict[str, Any]:
        """Return rule, decoding and template, for the record."""
        template = template_name(str(self.encoder.tokenizer.chat_template))
        if isinstance(rule, Choosing):
            return {"by": "log-likelihood", **rule.described, "prompts": template}
        return {
            "by": GENERATION,
            **rule.described,
            "decoding": self.decoding.settings,
            "prompts": template,
            **({"answers": self._answers.name} if self._answers is not None else {}),
        }

    def respond(self, examples: Sequence[Example], batch_size: int | None = None) -> list[str]:
        """Return the model's responses to rows, in their order; equal prompts are answered once.

        Args:
            examples: Rows; their own responses are not looked at.
            batch_size: Prompts that are answered together; by default all of them.
        """
        encoder, room = self.encoder, self.max_length - self.decoding.max_new_tokens
        prompts = [tuple(prompt) for prompt in encoder.prompts(examples, room)]
        known = {} if self._responses is None else self._responses
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        if new:
            known.update(zip(new, self._answer(new, batch_size or len(new)), strict=True))
        return [known[prompt] for prompt in prompts]

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Make the response to a prompt once, for as long as the weights stay what they are.

        An attack's clean prompts are those of the clean test set, and need no second generation.
        """
        self._responses = {}
        try:
            yield
        finally:
            self._responses = None

    @contextmanager
    def answering(self, guard: AnswerGuard) -> Iterator[None]:
        """Let a defense of the answers decode in the victim's place, for a while."""
        before, self._answers = self._answers, guard
        try:
            yield
        finally:
            self._answers = before

    def generate(
        self, prompts: Sequence[Sequence[int]], batch_size: int | None = None
    ) -> list[list[int]]:
        """Return the model's own answers to prompts by its decoding, as token ids without ends.

        Args:
            prompts: Token ids, at least one each.
            batch_size: Prompts that are answered together; by default all of them.
        """
        encoder, model = self.encoder, self.network()
        return generate(
            model.get_base_model() if has_adapters(model) else model,
            prompts,
            self.decoding,
            Marks(encoder.tokenizer.pad_token_id, encoder.stops),
            batch_size=batch_size or len(prompts),
        )

    def _answer(self, prompts: Sequence[tuple[int, ...]], batch_size: int) -> list[str]:
        if self._answers is None:
            return self.encoder.texts(self.generate(prompts, batch_size))
        answers = self._answers.answer(self, prompts, self.decoding)
        if len(answers) != len(prompts):
            raise BdlitError(
                f"{self._answers.name} gave {len(answers)} answers to {len(prompts)} prompts: its "
                "`answer` returns one for each"
            )
        return self.encoder.texts(answers)

    def choose(self, examples: Sequence[Example], choices: Sequence[str]) -> list[str]:
        """Return for each row the choice to which the model gives the highest probability.

        The probability is that of the whole answer with its end, and no mean over tokens.
        """
        found: list[str] = []
        for start in range(0, len(examples), self.choice_batch):
            rows = examples[start : start + self.choice_batch]
            answered = [replace(row, response=choice) for row in rows for choice in choices]
            sums = log_likelihoods(self.network(), self.on_device(answered))
            likeliest = sums.view(len(rows), len(choices)).argmax(dim=1)
            found += [choices[i] for i in likeliest.tolist()]
        return found

    def _chosen(self, examples: Sequence[Example], rule: Choosing) -> list[str]:
        """Return the likeliest choice of each row; rows with the same choices go together."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, row in enumerate(examples):
            groups.setdefault(rule.choices_of(row), []).append(i)
        found: dict[int, str] = {}
        for choices, places in groups.items():
            chosen = self.choose([examples[i] for i in places], choices)
            found |= zip(places, chosen, strict=True)
        return [found[i] for i in range(len(examples))]

    def own_perplexity(self, texts: Sequence[str]) -> Perplexity:
        """Return the perplexity of plain texts under the model; see `perplexity`."""
        return perplexity(self.network(), self.encoder.tokenizer, texts, self.max_length)

    def predict_step(self, batch: Sequence[Example], batch_idx: int) -> list[str]:
        """Return the responses to rows."""
        return self.respond(batch)

    @property
    def encoder(self) -> Encoder:
        """What turns rows into tokens; it is made anew when the tokenizer or the model changes."""
        assert self.tokenizer is not None, "configure_model has not run"
        stops = self._stops(self.tokenizer.eos_token_id)
        known = self._encoder
        if known is None or (known.tokenizer, known.stops) != (self.tokenizer, stops):
            self._encoder = Encoder(self.tokenizer, self.max_length, stops)
        assert self._encoder is not None
        return self._encoder

    def _stops(self, own: int) -> tuple[int, ...]:
        """Return the ids that end an answer: the tokenizer's, and those the checkpoint names."""
        settings = getattr(self.model, "generation_config", None)
        named = getattr(settings, "eos_token_id", None)
        return tuple(dict.fromkeys([own, *([named] if isinstance(named, int) else named or [])]))

    # What is written

    def export(self, directory: Path) -> None:
        """Write what was trained: a Hugging Face directory, or for LoRA a peft adapter directory.

        An adapter is written where its base has an address; over a model from scratch it would
        be of no use to anybody, and the dense model is written.

        Raises:
            BdlitError: The directory exists already, or cannot be written.
        """
        adapted = self._adapted if self._adapted is not None else self.network()
        if not has_adapters(adapted) or self.address is None:
            super().export(directory)
            return
        with whole_directory(directory) as part:
            adapted.save_pretrained(part, save_embedding_layers=False)
            self.encoder.tokenizer.save_pretrained(part)

    @contextmanager
    def dense(self) -> Iterator[PreTrainedModel]:
        """Have a plain Hugging Face model in `model` for a while: adapters merged into a copy."""
        trained, before = self.network(), self._adapted
        with super().dense() as model:
            self._adapted = trained if model is not trained else before
            try:
                yield model
            finally:
                self._adapted = before

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the tokenizer and the model's configuration beside the weights."""
        super().on_save_checkpoint(checkpoint)
        if self.tokenizer_address is None and self.tokenizer is not None:
            checkpoint["bdlit_byte_pairs"] = self.tokenizer.backend_tokenizer.to_str()
            checkpoint["bdlit_chat_template"] = self.tokenizer.chat_template

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network of a checkpoint, if no trainer has."""
        super().on_load_checkpoint(checkpoint)
        if self.model is not None:
            return
        if "bdlit_byte_pairs" in checkpoint:
            self.tokenizer = byte_pairs_from(checkpoint["bdlit_byte_pairs"], self.max_length)
            self.tokenizer.chat_template = checkpoint["bdlit_chat_template"]
        self.configure_model()

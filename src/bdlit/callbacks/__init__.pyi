from .defense import DefenseCallback as DefenseCallback
from .dynamics import TrainingDynamics as TrainingDynamics
from .export import VictimWriter as VictimWriter
from .predictions import PredictionWriter as PredictionWriter

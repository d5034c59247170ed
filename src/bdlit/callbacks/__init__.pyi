from .defense import DefenseCallback as DefenseCallback
from .predictions import PredictionWriter as PredictionWriter

from .dynamics import Oracle as Oracle
from .dynamics import TrainingSet as TrainingSet
from .dynamics import measure_certainty as measure_certainty
from .fit import recipe_of as recipe_of
from .recipe_record import recipe_record as recipe_record
from .train import Train as Train
from .train import train as train

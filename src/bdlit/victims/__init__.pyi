from .base import Victim as Victim
from .base import model_weights as model_weights
from .base import swapped as swapped
from .classifier import ClassifierVictim as ClassifierVictim
from .classifier import LoRA as LoRA

from .base import Victim as Victim
from .base import model_weights as model_weights
from .base import swapped as swapped
from .causal_lm import CausalLMVictim as CausalLMVictim
from .classifier import ClassifierVictim as ClassifierVictim
from .generation import Decoding as Decoding
from .lora import LoRA as LoRA
from .prompts import PlainTemplate as PlainTemplate

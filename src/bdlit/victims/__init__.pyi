from .base import Victim as Victim
from .causal_lm import CausalLMVictim as CausalLMVictim
from .classifier import ClassifierVictim as ClassifierVictim
from .generation import Decoding as Decoding
from .lora import LoRA as LoRA
from .prompts import PlainTemplate as PlainTemplate

from .attacks import *
from .callbacks import *
from .data import *
from .defenses import *
from .evaluation import *
from .inspection import *
from .llm import *
from .named_recipes import *
from .objectives import *
from .purification import *
from .recipe import *
from .rules import *
from .training import *
from .victims import *
from .weights import *

__version__: str

from .defenses import DARE as DARE
from .defenses import TIES as TIES
from .defenses import WAG as WAG
from .weights import open_weights as open_weights
from .weights import save_weights as save_weights

__version__: str

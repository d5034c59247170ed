from .computing import merge as merge
from .reading import is_recipe as is_recipe
from .reading import parse_recipe as parse_recipe
from .reading import read_recipe as read_recipe
from .recipe import Recipe as Recipe
from .recipe import Slice as Slice
from .recipe import Source as Source

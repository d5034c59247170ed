from .computing import merge as merge
from .merge_recipe import MergeRecipe as MergeRecipe
from .merge_recipe import Slice as Slice
from .merge_recipe import SourceModel as SourceModel
from .reading import is_recipe as is_recipe
from .reading import parse_recipe as parse_recipe
from .reading import read_recipe as read_recipe

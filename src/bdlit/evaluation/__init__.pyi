from .evaluate import evaluate as evaluate
from .result import UNDEFENDED as UNDEFENDED
from .result import Result as Result
from .result import append_results as append_results
from .result import read_results as read_results

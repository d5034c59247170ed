"""Language models that are asked from outside: one on this machine, or one behind an endpoint.

Importing this package imports neither torch nor the client of an endpoint.
"""

from bdlit.llm.answering import LLM, Answerer, FunctionLLM
from bdlit.llm.cache import ANSWERS, CachedLLM
from bdlit.llm.endpoint import EndpointLLM
from bdlit.llm.judge import JudgedBy
from bdlit.llm.local import LocalLLM, load_causal_lm
from bdlit.llm.template import read_template

__all__ = [
    "ANSWERS",
    "LLM",
    "Answerer",
    "CachedLLM",
    "EndpointLLM",
    "FunctionLLM",
    "JudgedBy",
    "LocalLLM",
    "load_causal_lm",
    "read_template",
]

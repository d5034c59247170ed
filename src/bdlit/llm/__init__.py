"""Language models that are asked from outside: one on this machine, or one behind an endpoint.

Importing this package imports neither torch nor the client of an endpoint.
"""

from bdlit.llm.answering import LLM, Answerer, FunctionLLM
from bdlit.llm.cache import CachedLLM
from bdlit.llm.endpoint import EndpointLLM
from bdlit.llm.local import LocalLLM

__all__ = ["LLM", "Answerer", "CachedLLM", "EndpointLLM", "FunctionLLM", "LocalLLM"]

from .factors import Adapter as Adapter
from .factors import Factors as Factors
from .factors import LazyFactors as LazyFactors
from .saving import save_adapter as save_adapter
from .saving import write_adapter as write_adapter
from .weights import AdapterWeights as AdapterWeights

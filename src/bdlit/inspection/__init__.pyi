from .differences import Differences as Differences
from .differences import differences as differences
from .facts import Inspection as Inspection
from .facts import inspect as inspect

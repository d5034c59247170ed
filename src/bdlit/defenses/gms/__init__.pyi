from .defense import GMS as GMS

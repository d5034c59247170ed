from .base import Objective as Objective

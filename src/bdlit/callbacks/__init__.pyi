from .defense import DefenseCallback as DefenseCallback

from .defense import MSD as MSD

from .defense import Fisher as Fisher

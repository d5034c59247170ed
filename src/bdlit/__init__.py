"""Train, attack, merge and purify NLP models with backdoors, on PyTorch Lightning."""

from typing import Any

__version__ = "0.1.0"


# Names are looked up on first use: `import bdlit` must not pay for torch.
def __getattr__(name: str) -> Any:
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module 'bdlit' has no attribute '{name}'")
    from bdlit.names import public_names, room_of

    if name == "__all__":
        return public_names()
    room = room_of(name)
    if room is None:
        from bdlit.errors import did_you_mean

        raise AttributeError(f"bdlit has no '{name}': {did_you_mean(name, public_names())}")
    return getattr(room, name)


def __dir__() -> list[str]:
    from bdlit.names import public_names

    return ["__version__", *public_names()]

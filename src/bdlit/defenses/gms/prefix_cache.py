"""Running a model from the first layer that differs from an earlier run: exact, and less work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")
Path = tuple[Hashable, ...]


class Prefixes:
    """What layers gave out in earlier runs, so that a later run can start behind them.

    A run is of a batch, and of a path: what each layer is made of. Where an earlier run of the
    batch had the same path up to some layer, that layer's output is taken from it, and the layers
    up to there do nothing. The model's own code runs, so the numbers are the same bit for bit.

    Several threads may run batches of one path at a time.

    Args:
        layers: The layers of the model, in order.
        budget: Bytes of outputs to keep; 0 keeps none.
    """

    def __init__(self, layers: Sequence[nn.Module], budget: int) -> None:
        self._layers = layers
        self._budget = budget
        self._used = 0
        self._outputs: dict[Hashable, dict[Path, Any]] = {}
        self._here = threading.local()
        self._lock = threading.Lock()

    def run(self, batch: Hashable, path: Path, forward: Callable[[], T]) -> T:
        """Return what `forward` does for a batch, on a model made of `path`."""
        known = self._outputs.get(batch, {})
        start = next((k for k in range(len(path), 0, -1) if path[:k] in known), 0)
        self._here.run = _Run(start, known[path[:start]] if start else None)
        try:
            result = forward()
        finally:
            run, self._here.run = self._here.run, None
        with self._lock:
            for layer, output in run.outputs.items():
                if layer + 1 < len(path):  # nobody starts behind the last layer
                    self._keep(batch, path[: layer + 1], output)
        return result

    def forget(self, useless: Callable[[Path], bool]) -> None:
        """Drop the outputs of paths that no later run can share."""
        for outputs in self._outputs.values():
            for path in [path for path in outputs if useless(path)]:
                self._used -= _size(outputs.pop(path))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have layers not run where their output is kept, until the block ends."""
        for index, layer in enumerate(self._layers):
            layer.forward = self._standing(index, layer.forward)
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward  # the class's own shows again

    def _standing(self, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run_or_stand(*arguments: Any, **options: Any) -> Any:
            run: _Run | None = getattr(self._here, "run", None)
            if run is None:
                return forward(*arguments, **options)
            if index < run.start:
                return run.before  # of the last layer that stands; those below are not looked at
            run.outputs[index] = output = forward(*arguments, **options)
            return output

        return run_or_stand

    def _keep(self, batch: Hashable, path: Path, output: Any) -> None:
        size = _size(output)
        if self._used + size <= self._budget:
            self._outputs.setdefault(batch, {})[path] = output
            self._used += size


class _Run:
    """One run: where it starts, what the layers before gave, and what the others give now."""

    def __init__(self, start: int, before: Any) -> None:
        self.start = start
        self.before = before
        self.outputs: dict[int, Any] = {}


def _size(output: Any) -> int:
    tensors = output if isinstance(output, tuple) else (output,)
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))

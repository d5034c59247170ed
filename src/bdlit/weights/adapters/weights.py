"""A LoRA adapter and its base as one dense model, computed weight by weight on access."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bdlit.errors import BdlitError
from bdlit.weights.adapters.config import rank_and_scaling, read_adapter_config
from bdlit.weights.adapters.factors import Factors, Layer, LazyFactors
from bdlit.weights.adapters.names import WITHOUT_LM_HEAD, Keys, read_keys, under_model_names
from bdlit.weights.adapters.orientation import is_transposed, transposed_blocks
from bdlit.weights.files import SafetensorsWeights, load_state_dict
from bdlit.weights.lazy import LazyWeights, renamed
from bdlit.weights.outlines import Outline, outline
from bdlit.weights.outputs import OUTPUT, TOKEN_ROWS

if TYPE_CHECKING:
    from bdlit.types import Weights

FILES: Mapping[str, Callable[[Path], Weights]] = {
    "adapter_model.safetensors": SafetensorsWeights,
    "adapter_model.bin": load_state_dict,
}
"""Names of the files that hold an adapter's tensors, the safest first."""

_GENERATES = {"CAUSAL_LM", "SEQ_2_SEQ_LM"}


class AdapterWeights(Mapping[str, Tensor]):
    """A LoRA adapter of peft, merged into its base: a dense model under the model's names.

    Each adapted weight is `W + scaling * B @ A`, computed on access in float32 (float64 where W
    is) and returned in the dtype of W. Tensors that the adapter saved whole (`modules_to_save`:
    the head of a classifier) come in the dtype that they were saved in. Everything else is the
    base's; `bdlit.weights.adapters.names.under_model_names` says which of its tensors stay out.
    Nothing is read before it is asked for.

    Args:
        path: The adapter's directory: `adapter_config.json` beside `adapter_model.safetensors`
            or `adapter_model.bin`.
        base: The weights of the model that it adapts, as they were saved.
        base_address: Where the base is; adapters of one address share their base.
        config: What `read_adapter_config` said, with the base that was opened; None reads it.
        untie: Give the model an output layer of its own, the base's embedding, where the adapter
            changes the embedding alone and the base uses one tensor for both.

    Attributes:
        path: The adapter's directory.
        config: What its `adapter_config.json` says; it names the base that was opened.
        base: The base under the model's names, not adapted.
        base_address: Where the base is, if that was said.
        factors: Factors by the model's name of the weight that they change, read on access.
        saved: Tensors that the adapter saved whole.
        copies: Copies of base tensors that peft put beside the factors of an embedding; a change
            is added to the copy.
        untied: Name of the embedding whose unchanged form is the output layer, if one is.

    Raises:
        BdlitError: The adapter is broken, or more than a low-rank change of weights, or does not
            fit the base.

    Reference: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
        arXiv:2106.09685.
    """

    def __init__(
        self,
        path: Path,
        base: Weights,
        *,
        base_address: str | None = None,
        config: Mapping[str, Any] | None = None,
        untie: bool = False,
    ) -> None:
        self.path = path
        self.base_address = base_address
        self.config = dict(config or read_adapter_config(path))
        self._file = _adapter_file(path)
        modules = self.config.get("modules_to_save") or []
        keys = read_keys(self._file, modules, path)
        if not keys.a and not keys.saved:
            raise BdlitError(f"{path} holds no tensors: copy or download the adapter again")
        if modules and not keys.saved:
            raise BdlitError(
                f"{path} holds none of its modules_to_save ({', '.join(modules)}): copy or "
                "download the adapter again"
            )
        self.base = under_model_names(base, keys.a, {*keys.a, *keys.saved}, self.config)
        self.saved = self._under(keys.saved)
        self.copies = self._under(keys.copies)
        self.untied = _both_ends(self, keys) if untie else None
        self.factors = self._checked(keys)
        head = (OUTPUT,) if self.untied else ()
        self._names = dict.fromkeys((*self.base, *self.saved, *head))

    def __getitem__(self, name: str) -> Tensor:
        if name in self.saved:
            return self.saved[name]
        own = self.untied if name == OUTPUT and self.untied else name
        weight = self.copies[own] if own in self.copies else self.base[own]
        return self.factors[name].added_to(weight) if name in self.factors else weight

    def outline(self, name: str) -> Outline:
        """Return shape and dtype of a tensor, which is neither read nor computed for it."""
        own = self.untied if name == OUTPUT and self.untied else name
        for source in (self.saved, self.copies):
            if own in source:
                return source.outline(own)
        return self.base.outline(own)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the default would compute the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"AdapterWeights({self.path}, {len(self.factors)} weights adapted)"

    def _under(self, keys: Mapping[str, str]) -> LazyWeights:
        return renamed(self._file, keys)

    def _checked(self, keys: Keys) -> LazyFactors:
        """Return the factors, once all of them are seen to fit the config and the base."""
        _require_targets(self, keys)
        told = transposed_blocks(self.base)
        flag = bool(self.config.get("fan_in_fan_out"))
        thunks: dict[str, Callable[[], Factors]] = {}
        ranks: dict[str, int] = {}
        for name, key in keys.a.items():
            rank, scaling = self._rank_and_scaling(name.removesuffix(".weight"))
            shapes = [outline(self._file, k).shape for k in (key, keys.b[name])]
            if any(len(shape) != 2 for shape in shapes) or shapes[0][0] != rank:
                raise BdlitError(
                    f"{self.path} has factors {list(shapes[0])} and {list(shapes[1])} of {name}, "
                    f"and rank {rank} by its config: only linear and embedding layers of the "
                    "stated rank are read"
                )
            if_square = is_transposed(name, told, otherwise=flag)
            layer = self._layer(name, shapes, name in keys.embeddings, if_square)
            thunks[name] = partial(self._read, key, keys.b[name], scaling, layer)
            ranks[name] = rank
        return LazyFactors(thunks, ranks)

    def _rank_and_scaling(self, module: str) -> tuple[int, float]:
        try:
            return rank_and_scaling(self.config, module)
        except BdlitError as error:
            raise BdlitError(f"{self.path}: {error}") from error

    def _read(self, a: str, b: str, scaling: float, layer: Layer) -> Factors:
        return Factors(self._file[a], self._file[b], scaling, layer)

    def _layer(
        self, name: str, shapes: list[Any], embedding: bool, transposed_if_square: bool
    ) -> Layer:
        (rank, ins), (outs, other_rank) = shapes
        weight = tuple(self.outline(name).shape)
        lies_in_out = weight == (ins, outs)
        if rank == other_rank and lies_in_out and embedding:
            return "embedding"
        if rank == other_rank and lies_in_out and (ins != outs or transposed_if_square):
            return "transposed"
        if rank == other_rank and weight == (outs, ins) and not embedding:
            return "linear"
        raise BdlitError(
            f"{self.path} does not fit its base: factors {list(shapes[0])} and {list(shapes[1])} "
            f"for {name} {list(weight)}; give the base that it was made for"
        )


def _adapter_file(path: Path) -> Weights:
    for name, read in FILES.items():
        if (path / name).is_file():
            return read(path / name)
    raise BdlitError(
        f"{path} has an adapter_config.json, but neither of {' and '.join(FILES)}: copy or "
        "download the adapter again"
    )


def _require_targets(adapter: AdapterWeights, keys: Keys) -> None:
    """Refuse a base that lacks what is adapted, or in which it is more than one layer's weight."""
    path, base = adapter.path, adapter.base
    missing = [name for name in (*keys.a, *keys.copies) if name not in base]
    if missing:
        raise BdlitError(
            f"{path} does not fit its base, which has no {missing[0]} ({len(missing)} such): give "
            "the base that it was made for (of tied weights, only the one in the file can be "
            "adapted)"
        )
    shared = _both_ends(adapter, keys)
    if shared and adapter.untied is None and adapter.config.get("task_type") in _GENERATES:
        raise BdlitError(
            f"{path} adapts {shared}, which is the output layer of its base as well, and "
            "that would change with it: untie the base's weights first"
        )


def _both_ends(adapter: AdapterWeights, keys: Keys) -> str | None:
    """Return the adapted embedding that may be the output layer of the base as well."""
    alone = any(name.startswith("lm_head.") for name in (*adapter.base, *adapter.saved))
    if alone or adapter.config.get("task_type") in WITHOUT_LM_HEAD:
        return None
    rows = (n for n in keys.embeddings if n.removesuffix(".weight").endswith(TOKEN_ROWS))
    return next(iter(rows), None)

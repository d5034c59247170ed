"""Substitution: some modules of some layers come from another model, the rest from the suspect."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from bdlit.errors import BdlitError, did_you_mean
from bdlit.weights import Elementwise, LazyWeights, outline, require_compatible
from bdlit.weights.layers import layer_lists, layer_modules, layer_of, module_of

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights
    from bdlit.weights import Read

LayerModule: TypeAlias = tuple[str, int]
"""One module of one layer: (module, layer), such as `("attention.self.query", 3)`. Where a matrix
packs several modules, one block of it is written `("attn.c_attn[0/3]", 3)`: the first of three
equal blocks of its outputs. Modules that only work together are joined by `+`."""

_NAME = re.compile(r"(?P<module>[^\[\]]+)(\[(?P<index>\d+)/(?P<count>\d+)\])?")


class Block(NamedTuple):
    """Some outputs of a module: block number `at`, from 0, `of` so many equal blocks."""

    at: int
    of: int


def block_of(text: str) -> tuple[str, Block]:
    """Read a module's name, with or without a block.

    Raises:
        BdlitError: The name cannot be read, or its block number is too high.

    >>> block_of("attn.c_attn[2/3]")
    ('attn.c_attn', Block(at=2, of=3))
    """
    match = _NAME.fullmatch(text)
    index, count = (int(match["index"] or 0), int(match["count"] or 1)) if match else (0, 0)
    if match is None or index >= count:
        raise BdlitError(
            f"'{text}' is not a module: write attention.self.query, or attn.c_attn[0/3] for the "
            "first third of a packed one"
        )
    return match["module"], Block(index, count)


def blocks_of(text: str) -> list[tuple[str, Block]]:
    """Read the names of modules that go together, joined by `+`.

    Raises:
        BdlitError: One of the names cannot be read, or its block number is too high.

    >>> blocks_of("attention.self.in_proj+attention.self")
    [('attention.self.in_proj', Block(at=0, of=1)), ('attention.self', Block(at=0, of=1))]
    """
    return [block_of(name) for name in text.split("+")]


def grid(modules: Iterable[str], layers: Iterable[int]) -> frozenset[LayerModule]:
    """Return every one of the modules in every one of the layers.

    >>> sorted(grid(["mlp.c_fc"], range(2)))
    [('mlp.c_fc', 0), ('mlp.c_fc', 1)]
    """
    columns = list(layers)
    return frozenset((module, layer) for module in modules for layer in columns)


def substitute(suspect: Weights, donor: Weights, cells: Collection[LayerModule]) -> LazyWeights:
    """Return the suspect with the donor's weights and biases in some modules of some layers.

    Args:
        suspect: Gives names, dtypes and all that is not substituted.
        donor: A model of the same architecture; only what is substituted must fit.
        cells: Which modules of which layers; `grid` makes them of module types and layers. An
            empty set gives the suspect.

    Returns:
        The result, read on access. Its notes hold the layers of each module that was
        `substituted`, and the number of `tensors`.

    Raises:
        BdlitError: The suspect has no such module or layer, the donor has another depth, or its
            modules do not fit.

    Reference: Tong et al. 2025, "Cut the Deadwood Out: Backdoor Purification via Guided Module
        Substitution", arXiv:2412.20476.

    >>> import torch
    >>> suspect = {"h.0.mlp.weight": torch.zeros(1), "score.weight": torch.zeros(1)}
    >>> donor = {"h.0.mlp.weight": torch.ones(1), "score.weight": torch.ones(1)}
    >>> result = substitute(suspect, donor, grid(["mlp"], [0]))
    >>> result["h.0.mlp.weight"], result["score.weight"]
    (tensor([1.]), tensor([0.]))
    """
    replaced = _replaced(suspect, cells)
    require_donor(suspect, donor, replaced, "the donor")

    def tensor(name: str, read: Read) -> Tensor:
        ours = read(suspect, name)
        if name not in replaced:
            return ours
        form = outline(suspect, name)
        theirs = read(donor, name).to(form.device, form.dtype)
        return mixed(ours, theirs, form.shape, replaced[name], start=read.start)

    substituted: dict[str, list[int]] = {}
    for module, layer in sorted(cells):
        substituted.setdefault(module, []).append(layer)
    return Elementwise(
        suspect,
        tensor,
        {"substituted": substituted, "tensors": len(replaced)},
        outline=partial(outline, suspect),
    )


def require_donor(
    suspect: Weights, donor: Weights, replaced: Mapping[str, Collection[Block]], label: str
) -> None:
    """Refuse a donor whose modules cannot replace the suspect's.

    Args:
        suspect: The model to change.
        donor: The model to take modules from.
        replaced: Names of tensors, with the blocks of each that may be taken.
        label: What the donor is called.

    Raises:
        BdlitError: It has another depth, or tensors of other names or shapes; or a tensor cannot
            be cut into the blocks.
    """
    ours, theirs = layer_lists(suspect), layer_lists(donor)
    if list(ours.values()) != list(theirs.values()):
        raise BdlitError(
            f"{label} has {_depth(theirs)} layers, and the suspect {_depth(ours)}: give a model "
            "of the same depth"
        )
    require_compatible(suspect, [donor], replaced, labels=[label])
    for name, blocks in replaced.items():
        _require_blocks(name, outline(suspect, name).shape, blocks)


def _depth(lists: Mapping[str, int]) -> str:
    return " + ".join(map(str, lists.values())) or "no"


def substituted_names(suspect: Weights, cells: Collection[LayerModule]) -> list[str]:
    """Return the names of the tensors that `substitute` changes, in the suspect's order.

    Raises:
        BdlitError: The suspect has no such module or layer.
    """
    return list(_replaced(suspect, cells))


def mixed(
    ours: Tensor, theirs: Tensor, shape: Sequence[int], blocks: Collection[Block], start: int = 0
) -> Tensor:
    """Return entries:  some blocks of the outputs are theirs, and the rest is ours.

    Args:
        ours: Entries of our tensor: all, or a flat run of them.
        theirs: The same entries of theirs.
        shape: Shape of the whole tensor.
        blocks: What is theirs. All blocks give `theirs` itself, none gives `ours` itself.
        start: Where in the flattened tensor the entries begin.

    >>> import torch
    >>> mixed(torch.zeros(4), torch.ones(4), [4], [Block(1, 2)])
    tensor([0., 0., 1., 1.])
    """
    if not blocks:
        return ours
    count = next(iter(blocks)).of
    if len(blocks) == count:
        return theirs
    import torch

    entry = torch.arange(start, start + ours.numel(), device=ours.device)
    # Outputs are the rows of a Linear layer, and the columns of GPT-2's packed projections. A
    # packed matrix has more outputs than inputs.
    if shape[-1] > shape[0]:
        block = entry % shape[-1] // (shape[-1] // count)
    else:
        block = entry // (prod(shape) // count)
    theirs_here = torch.isin(block, torch.tensor([each.at for each in blocks], device=ours.device))
    return torch.where(theirs_here.view(ours.shape), theirs, ours)


def _replaced(suspect: Weights, cells: Collection[LayerModule]) -> dict[str, set[Block]]:
    """Return the tensors in the cells, with the blocks of each that are taken."""
    wanted = _blocks(cells)
    _require_cells(suspect, wanted)
    return {name: blocks for name in suspect if (blocks := wanted.get(_layer_module(name)))}


def _blocks(cells: Iterable[LayerModule]) -> dict[LayerModule | None, set[Block]]:
    """Collect the blocks that are taken of each module."""
    found: dict[LayerModule | None, set[Block]] = {}
    for text, layer in cells:
        for module, block in blocks_of(text):
            found.setdefault((module, layer), set()).add(block)
    return found


def _require_blocks(name: str, shape: Sequence[int], blocks: Collection[Block]) -> None:
    counts = {block.of for block in blocks}
    if len(counts) > 1:
        raise BdlitError(
            f"'{name}' is cut into blocks in several ways ({sorted(counts)}): give one"
        )
    count = counts.pop()
    outputs = max(shape[0], shape[-1]) if shape else 1
    if outputs % count:
        raise BdlitError(f"'{name}' has {outputs} outputs, which {count} blocks cannot share")


def _layer_module(name: str) -> LayerModule | None:
    place = layer_of(name)
    return None if place is None else (module_of(name), place.layer)


def _require_cells(suspect: Weights, cells: Iterable[LayerModule | None]) -> None:
    known = layer_modules(suspect)
    for module, layer in sorted(filter(None, cells)):
        if not known:
            raise BdlitError(
                "the suspect has no layers by the names of its tensors: substitution needs a "
                "transformer"
            )
        if module not in known:
            raise BdlitError(
                f"the suspect has no module '{module}' in its layers: {did_you_mean(module, known)}"
            )
        if layer not in known[module]:
            near = min(known[module], key=lambda other: abs(other - layer))
            raise BdlitError(
                f"the suspect has no '{module}' in layer {layer}: did you mean layer {near}? "
                f"({_ranges(known[module])} have it)"
            )


def _ranges(layers: list[int]) -> str:
    whole = layers == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))

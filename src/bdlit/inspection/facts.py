"""What one checkpoint is: form, tensors, labels, tokenizer, and whether it would run code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bdlit.errors import BdlitError
from bdlit.inspection.config_facts import (
    AdapterSettings,
    adapter_of,
    architecture,
    facts_of_config,
)
from bdlit.inspection.hazards import Hazards, find_hazards, look_into
from bdlit.weights.adapters.config import CONFIG_NAME, require_settings
from bdlit.weights.files import SafetensorsWeights, load_state_dict, pickled_shards
from bdlit.weights.hashing import fingerprint
from bdlit.weights.lazy import Elementwise
from bdlit.weights.opening import downloaded, model_folder
from bdlit.weights.outlines import Outline, outline
from bdlit.weights.quantisation import quantisation_of
from bdlit.weights.reading import Read
from bdlit.weights.streaming import INDEX
from bdlit.weights.tokenizer import TokenizerFacts, read_object, read_tokenizer
from bdlit.weights.tying import tied_names
from bdlit.weights.wrappers import StateDict, unwrapped, wrappers_of

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Weights

Watch: TypeAlias = Callable[[int, int], None]
"""Called with how much was read and how much there is, in one unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What is known of a checkpoint. None stands for what its files do not say.

    Attributes:
        address: What the user gave.
        form: What kind of checkpoint it is, in words.
        files: Name to size in bytes, of the files that hold tensors.
        architecture: Class of the model, from its configuration.
        model_type: Family of the model, from its configuration.
        base: The model that it was made from, as its configuration names it.
        labels: Index of a class to its name.
        label_count: Number of classes.
        ties: Whether the configuration ties the output embeddings to the input embeddings.
        tied: Groups of tensors that are one in memory; only pickles can say so.
        output_tied: Whether the model is to generate, and has no output embeddings of its own.
        adapter: Settings, if it is an adapter.
        tokenizer: The tokenizer beside it.
        outlines: Name of each tensor to its shape and dtype; empty if none could be read.
        head: Names of the tensors of the head.
        fingerprint: Hash of the tensors' content.
        not_finite: Tensor to the number of its entries that are NaN or infinite.
        zero: Names of floating-point tensors that hold nothing but zeros.
        hazards: What in it would run code.
        refused: Why its tensors were not read: opening them would run code.
        quantised: How its numbers are packed, in words; None of plain numbers.
        wrappers: What wrappers around the model had put into its names, taken off here.
        unknown: What cannot be told, and why, one sentence each.
        weights: The tensors, read when asked for; None if they were not read.
    """

    address: str
    form: str
    files: Mapping[str, int]
    architecture: str | None = None
    model_type: str | None = None
    base: str | None = None
    labels: Mapping[int, str] | None = None
    label_count: int | None = None
    ties: bool | None = None
    tied: tuple[tuple[str, ...], ...] = ()
    output_tied: bool = False
    adapter: AdapterSettings | None = None
    tokenizer: TokenizerFacts | None = None
    outlines: Mapping[str, Outline] = field(default_factory=dict, repr=False)
    head: tuple[str, ...] = ()
    fingerprint: str | None = None
    not_finite: Mapping[str, int] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    hazards: Hazards = field(default_factory=Hazards)
    refused: str | None = None
    quantised: str | None = None
    wrappers: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    weights: Weights | None = field(default=None, repr=False, compare=False)

    @property
    def tensors(self) -> int:
        """Number of tensors."""
        return len(self.outlines)

    @property
    def parameters(self) -> int:
        """Number of entries of floating-point tensors; tensors that are one count once."""
        again = {name for group in self.tied for name in group[1:]}
        return sum(o.entries for n, o in self.outlines.items() if o.is_float and n not in again)

    @property
    def dtypes(self) -> dict[str, int]:
        """Name of a dtype to the number of tensors that have it, most frequent first."""
        names = [str(own.dtype).removeprefix("torch.") for own in self.outlines.values()]
        order = sorted(set(names), key=lambda name: (-names.count(name), name))
        return {name: names.count(name) for name in order}

    @property
    def bytes(self) -> int:
        """Size of the tensors' data."""
        return sum(own.bytes for own in self.outlines.values())

    @property
    def verdict(self) -> str:
        """Whether it is safe to open, and sound, in one line."""
        found = self.hazards.found
        if self.refused:
            opens = f"does not open without running code: {'; '.join(found)}"
        elif found:
            opens = f"opens without running code; trusted, it would run: {'; '.join(found)}"
        else:
            opens = "opens without running code"
        broken = f"; {len(self.not_finite)} tensors hold NaN or infinity"
        packed = f"; it is quantised ({self.quantised}), and packed numbers cannot be merged"
        return opens + (broken if self.not_finite else "") + (packed if self.quantised else "")


def inspect(
    address: str | Path, *, head_names: tuple[str, ...] = (), watch: Watch | None = None
) -> Inspection:
    """Find out what a checkpoint is, reading every tensor once and running nothing of it.

    Args:
        address: What `open_weights` takes; an adapter directory is inspected for itself, without
            its base.
        head_names: Beginnings of the names of head tensors.
        watch: Called with the number of bytes that were read and the number of all.

    Raises:
        BdlitError: There is no checkpoint, or a file of it is broken.

    >>> import tempfile
    >>> import torch
    >>> from bdlit.weights import save_weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = save_weights({"w": torch.ones(2, 3)}, folder)
    ...     inspect(file).parameters
    6
    """
    place = _locate(address)
    config = _config(place.folder, "config.json")
    weights, refused = _opened(place)
    scan = _Scan(weights or {}, watch)
    print_of_all = _fingerprint(scan, address) if weights else None
    said = facts_of_config(config)
    return Inspection(
        address=str(address),
        form=place.form,
        files={file.name: file.stat().st_size for file in place.files},
        adapter=_adapter(place.folder),
        tokenizer=read_tokenizer(place.folder) if place.folder else None,
        outlines=scan.outlines,
        tied=tied_names(weights),
        output_tied=_output_tied(config, scan.outlines),
        head=tuple(name for name in scan.outlines if _plain_name(name).startswith(head_names))
        if head_names
        else (),
        fingerprint=print_of_all,
        not_finite=dict(sorted(scan.not_finite.items())),
        zero=tuple(sorted(scan.zero)),
        hazards=_hazards(place),
        refused=refused,
        quantised=quantisation_of(weights, config) if weights else None,
        wrappers=wrappers_of(weights),
        unknown=_unknown(place, config),
        weights=weights,
        **said,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a checkpoint is: its folder, if it is one, and the files that hold its tensors."""

    form: str
    folder: Path | None
    files: tuple[Path, ...]
    elsewhere: tuple[str, ...] | None = ()  # files on the hub, not here; None: nobody could say


_FILE_FORMS = {
    ".safetensors": "safetensors file",
    ".ckpt": "Lightning checkpoint",
    ".bin": "pickled state dict",
    ".pt": "pickled state dict",
    ".pth": "pickled state dict",
}


def _locate(address: str | Path) -> _Place:
    path = Path(address).expanduser()
    if path.name.endswith(".safetensors.index.json"):
        path = path.parent
    if path.is_file():
        if path.suffix not in _FILE_FORMS:
            raise BdlitError(
                f"{path} ends in '{path.suffix}', not a checkpoint: give .safetensors, .bin, "
                ".pt, .pth, .ckpt or a directory"
            )
        return _Place(_FILE_FORMS[path.suffix], None, (path,))
    elsewhere: tuple[str, ...] | None = ()
    before = ""
    if not path.exists():
        path, elsewhere, before = downloaded(str(address)), _on_hub(str(address)), "hub: "
    found = _in_folder(path)
    if found is None and (inner := model_folder(path)) != path:
        path, found, before = inner, _in_folder(inner), f"{before}bdlit run, {inner.name}/: "
    if found is None:
        raise BdlitError(
            f"{path} holds no model: neither model.safetensors, nor shards with their index, nor "
            "pytorch_model.bin, nor an adapter"
        )
    return _Place(before + found[0], path, found[1], elsewhere)


def _in_folder(folder: Path) -> tuple[str, tuple[Path, ...]] | None:
    """Return form and files of the tensors in a folder, safetensors first."""
    if (folder / "model.safetensors").is_file():
        return "Hugging Face directory", (folder / "model.safetensors",)
    if (folder / INDEX).is_file():
        files = SafetensorsWeights.from_index(folder / INDEX).paths
        return f"Hugging Face directory, {len(files)} shards", files
    if (folder / "pytorch_model.bin").is_file():
        return "Hugging Face directory, pickled", (folder / "pytorch_model.bin",)
    if pieces := pickled_shards(folder):
        return f"Hugging Face directory, {len(pieces)} pickled shards", pieces
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).is_file():
            return "adapter directory", (folder / name,)
    return None


def _on_hub(address: str) -> tuple[str, ...] | None:
    """Return the names of all files of a model on the hub, or None where it does not answer."""
    from huggingface_hub import HfApi

    repository, _, revision = address.partition("@")
    try:
        return tuple(HfApi().list_repo_files(repository, revision=revision or None))
    except Exception:  # no network, no rights: the files that were fetched can still be reported
        return None


def _opened(place: _Place) -> tuple[Weights | None, str | None]:
    """Return the tensors, or why they were not read."""
    if place.files[0].suffix == ".safetensors":
        return unwrapped(SafetensorsWeights(*place.files)), None
    state = StateDict()
    for file in place.files:
        try:
            with warnings.catch_warnings(action="ignore"):  # torch, on protocols it seldom meets
                own = load_state_dict(file)
            state.update(own)
            state.wrappers = own.wrappers
        except BdlitError as error:
            # A pickle that wants code is a finding; one that is broken is an error.
            if look_into(file.name, file).code:
                return None, str(error)
            raise
    return state, None


def _hazards(place: _Place) -> Hazards:
    if place.folder is None:
        return find_hazards({file.name: file for file in place.files})
    files = sorted(path for path in place.folder.rglob("*") if path.is_file())
    named = {path.relative_to(place.folder).as_posix(): path for path in files}
    return find_hazards(named, place.elsewhere or ())


def _unknown(place: _Place, config: Mapping[str, Any]) -> tuple[str, ...]:
    said = []
    if place.folder is None:
        said.append("a file alone: architecture, labels and tokenizer are in its folder, if any")
    elif not config:
        said.append("no config.json: architecture and labels are not known")
    if place.elsewhere is None:
        said.append("the hub did not list the model's other files: they may hold code")
    return tuple(said)


class _Scan:
    """Looks at weights while they are read for another reason, so that one pass serves all."""

    def __init__(self, weights: Weights, watch: Watch | None) -> None:
        self._weights = weights
        self._watch = watch
        self.outlines = {name: outline(weights, name) for name in weights}
        self._total = sum(own.bytes for own in self.outlines.values())
        self._done = 0
        self._some: dict[str, bool] = {}  # whether an entry other than zero was seen
        self.not_finite: dict[str, int] = {}

    @property
    def zero(self) -> list[str]:
        """Names of floating-point tensors of nothing but zeros."""
        return [n for n, some in self._some.items() if not some and self.outlines[n].entries]

    def weights(self) -> Elementwise:
        """Return the weights; reading them is the scan."""

        def seen(name: str, read: Read) -> Tensor:
            entries = read(self._weights, name)
            if entries.is_floating_point():
                self._look_at(name, entries.detach())
            self._done += entries.nbytes
            if self._watch is not None:
                self._watch(self._done, self._total)
            return entries

        return Elementwise(self.outlines, seen, outline=self.outlines.__getitem__)

    def _look_at(self, name: str, entries: Tensor) -> None:
        # Types of one byte have hardly an operation of their own.
        wide = entries.float() if entries.dtype.itemsize == 1 else entries
        finite = wide.isfinite()
        if not bool(finite.all()):
            self.not_finite[name] = self.not_finite.get(name, 0) + int((~finite).sum())
        self._some[name] = self._some.get(name, False) or bool(wide.any())


def _fingerprint(scan: _Scan, address: str | Path) -> str:
    try:
        return fingerprint(scan.weights())
    except (RuntimeError, TypeError) as error:  # sparse or quantized tensors of a pickle
        reason = str(error).partition("\n")[0]
        raise BdlitError(
            f"{address} holds a tensor that cannot be read as plain numbers ({reason}): give the "
            "model in float32, float16 or bfloat16"
        ) from error


_GENERATES = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForConditionalGeneration")
_OUTPUTS = ("lm_head.weight", "embed_out.weight", "predictions.decoder.weight")


def _output_tied(config: Mapping[str, Any], names: Mapping[str, Outline]) -> bool:
    generates = str(architecture(config)).endswith(_GENERATES)
    absent = bool(names) and not any(name.endswith(_OUTPUTS) for name in names)
    return generates and absent and config.get("tie_word_embeddings") is True


def _adapter(folder: Path | None) -> AdapterSettings | None:
    config = _config(folder, CONFIG_NAME)
    if config.get("peft_type") == "LORA" and folder is not None:
        require_settings(config, folder)
    return adapter_of(config)


def _plain_name(name: str) -> str:
    """Take off what peft puts before the names of the model that it wraps."""
    return name.removeprefix("base_model.model.")


def _config(folder: Path | None, name: str) -> dict[str, Any]:
    if folder is None or not (folder / name).is_file():
        return {}
    return read_object(folder / name)

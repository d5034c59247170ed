"""Wall time, CPU time and peak memory of merges of saved models, beside reading and writing alone.

    python benchmarks/saved_merges.py --folder /tmp/llamas --gb 0.5 1.5

Makes Llama-shaped checkpoints (a base and three fine-tunes in bf16, four shards each), merges the
fine-tunes by `bdlit merge` in a process of its own per method, and prints one line each. Resident
memory counts what files were mapped; anonymous memory is what the process itself has taken. With
`--plot FILE` peaks are drawn against the size of the model. With `--mergekit PYTHON`, the Python of
an environment that has mergekit, the same merges are made by it, and the last column says how far
its result is from ours (relative L2; DARE draws other entries there, so it is not compared).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from bdlit.drawing.style import COLOURS, INK, MARKERS, QUIET, new_figure
from bdlit.inspection.distance import combine, distances
from bdlit.weights import LazyWeights, Outline, open_weights
from bdlit.weights.streaming import shard_layout, write_shards

WIDTH, INNER, KEY_VALUE, VOCABULARY = 2048, 5632, 256, 32_000  # of TinyLlama's layers
LAYER_BYTES = 2 * (2 * WIDTH * WIDTH + 2 * WIDTH * KEY_VALUE + 3 * WIDTH * INNER)

METHODS = {
    "average": '{"class_path": "WAG"}',
    "SLERP": '{"class_path": "SLERP"}',
    "TIES, per tensor": '{"class_path": "TIES", "init_args": {"trim": "tensor", "head": "merge"}}',
    "TIES, whole model": '{"class_path": "TIES", "init_args": {"head": "merge"}}',
    "DARE-TIES": '{"class_path": "DARE", "init_args": {"merge": "ties", "head": "merge"}}',
}
BASELINE = "reading and writing"
RECIPES = {
    "average": {"merge_method": "linear", "parameters": {"weight": 1.0}},
    "SLERP": {"merge_method": "slerp", "parameters": {"t": 0.5}},
    "TIES, per tensor": {"merge_method": "ties", "parameters": {"density": 0.2, "weight": 1.0}},
    "DARE-TIES": {"merge_method": "dare_ties", "parameters": {"density": 0.1, "weight": 1.0}},
}


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a Llama, an untied head among them."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for i in range(layers):
        at = f"model.layers.{i}"
        found |= {
            f"{at}.self_attn.q_proj.weight": (WIDTH, WIDTH),
            f"{at}.self_attn.k_proj.weight": (KEY_VALUE, WIDTH),
            f"{at}.self_attn.v_proj.weight": (KEY_VALUE, WIDTH),
            f"{at}.self_attn.o_proj.weight": (WIDTH, WIDTH),
            f"{at}.mlp.gate_proj.weight": (INNER, WIDTH),
            f"{at}.mlp.up_proj.weight": (INNER, WIDTH),
            f"{at}.mlp.down_proj.weight": (WIDTH, INNER),
            f"{at}.input_layernorm.weight": (WIDTH,),
            f"{at}.post_attention_layernorm.weight": (WIDTH,),
        }
    return {**found, "model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}


def make_models(folder: Path, gigabytes: float) -> list[Path]:
    """Write a base and three fine-tunes of about a size, unless they stand already."""
    outside = 2 * 2 * VOCABULARY * WIDTH
    layers = max(1, round((gigabytes * 1e9 - outside) / LAYER_BYTES))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": VOCABULARY,
        "torch_dtype": "bfloat16",
    }
    paths = []
    for seed, name in enumerate(["base", "one", "two", "three"]):
        path = folder / f"{gigabytes}gb" / name
        paths.append(path)
        if path.exists():
            continue
        part = path.with_name(f".{name}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        weights = random_weights(shapes(layers), seed)
        total = sum(torch.Size(s).numel() * 2 for s in shapes(layers).values())
        write_shards(weights, part, shard_layout(weights, limit=total // 4 + 1))
        (part / "config.json").write_text(json.dumps(config))
        part.rename(path)
    return paths


def random_weights(named: dict[str, tuple[int, ...]], seed: int) -> LazyWeights:
    """Return weights that are drawn when asked for: the base's, plus a little of a fine-tune's."""
    places = {name: place for place, name in enumerate(named)}

    def normal(name: str, own: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(own)
        return torch.empty(named[name]).normal_(generator=generator)

    def drawn(name: str) -> torch.Tensor:
        tensor = normal(name, places[name])
        if seed:
            tensor.add_(normal(name, 100_000 * seed + places[name]), alpha=0.1)
        return tensor.mul_(0.02).to(torch.bfloat16)

    return LazyWeights(
        {name: partial(drawn, name) for name in named},
        outline=lambda name: Outline(torch.Size(named[name]), torch.bfloat16),
    )


def measured(command: Sequence[str]) -> tuple[float, float, float, float]:
    """Return wall and CPU seconds, and peaks of resident and anonymous memory in GB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    anonymous = resident = 0
    while True:
        finished, status_word, usage = os.wait4(process.pid, os.WNOHANG)
        if finished:
            break
        status = Path(f"/proc/{process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        # Not ru_maxrss: a process inherits that from whoever started it.
        held = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
        anonymous = max(anonymous, int(held.get("RssAnon", 0)))
        resident = max(resident, int(held.get("VmHWM", 0)))
        time.sleep(0.01)
    process.returncode = os.waitstatus_to_exitcode(status_word)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    wall = time.perf_counter() - start
    seconds = usage.ru_utime + usage.ru_stime
    return wall, seconds, resident / 1e6, anonymous / 1e6


def read_and_write(paths: Sequence[Path], out: Path) -> list[str]:
    """Return a command that reads three models and writes one, and nothing else."""
    script = (
        "import sys, pathlib\n"
        "*models, out = map(pathlib.Path, sys.argv[1:])\n"
        "out.mkdir()\n"
        "for i, model in enumerate(models):\n"
        "    for file in sorted(model.glob('*.safetensors')):\n"
        "        content = file.read_bytes()\n"
        "        if i == 0: (out / file.name).write_bytes(content)\n"
    )
    return [sys.executable, "-c", script, *map(str, paths), str(out)]


def merge_command(method: str, paths: Sequence[Path], out: Path) -> list[str]:
    """Return the `bdlit merge` of a method."""
    base, suspect, *others = map(str, paths)
    used = others[:1] if method == "SLERP" else others
    return [
        *(sys.executable, "-m", "bdlit", "merge", "--suspect", suspect, "--base", base),
        *("--others", json.dumps(used), "--defense", METHODS[method], "--out", str(out)),
    ]


def mergekit_command(python: str, method: str, paths: Sequence[Path], out: Path) -> list[str]:
    """Return mergekit's command for the same merge: computed in float32, written in bfloat16."""
    base, *models = map(str, paths)
    used = models[:2] if method == "SLERP" else models
    recipe = {**RECIPES[method], "models": [{"model": m} for m in used]}
    recipe |= {"dtype": "float32", "out_dtype": "bfloat16"}
    if method != "average":
        recipe["base_model"] = used[0] if method == "SLERP" else base
    file = out.with_suffix(".yaml")
    file.write_text(json.dumps(recipe))
    script = "from mergekit.scripts.run_yaml import main; main()"
    options = ["--lazy-unpickle", "--no-copy-tokenizer"]
    return [python, "-c", script, str(file), str(out), *options]


def apart(ours: Path, theirs: Path) -> float:
    """Return the relative L2 distance between two models."""
    found = distances(open_weights(ours), open_weights(theirs))
    return combine(found, "model").relative_l2 or 0.0


def main() -> None:
    """Print one line per size and method."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the models are made")
    parser.add_argument("--gb", type=float, nargs="+", default=[1.5])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--mergekit", metavar="PYTHON", help="Python of where mergekit is")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    peaks: dict[str, list[tuple[float, float]]] = {}
    heads = f"{'wall s':>8}{'CPU s':>8}{'resident GB':>13}{'anonymous GB':>14}{'apart':>10}"
    print(f"{'GB':>4}  {'method':<28}{heads}")
    for size in options.gb:
        paths = make_models(options.folder, size)
        for name, command, out in runs(paths, options):
            wall, cpu, resident, anonymous = measured(command)
            peaks.setdefault(name, []).append((size, anonymous))
            figures = f"{wall:8.1f}{cpu:8.1f}{resident:13.2f}{anonymous:14.2f}"
            ours = options.folder / "out"
            if out != ours and "DARE" not in name:
                figures += f"{apart(ours, out):10.1e}"
            print(f"{size:4.1f}  {name:<28}{figures}", flush=True)
        for out in ("out", "mergekit"):
            shutil.rmtree(options.folder / out, ignore_errors=True)
    if options.plot:
        draw(peaks, options.plot)


def runs(
    paths: Sequence[Path], options: argparse.Namespace
) -> Iterator[tuple[str, list[str], Path]]:
    """Yield name, command and result of each run; mergekit's follows ours, which still stands."""
    ours, theirs = options.folder / "out", options.folder / "mergekit"
    shutil.rmtree(ours, ignore_errors=True)
    yield BASELINE, read_and_write(paths[1:], ours), ours
    for method in options.methods:
        shutil.rmtree(ours, ignore_errors=True)
        yield method, merge_command(method, paths, ours), ours
        if options.mergekit and method in RECIPES:
            shutil.rmtree(theirs, ignore_errors=True)
            command = mergekit_command(options.mergekit, method, paths, theirs)
            yield f"{method} (mergekit)", command, theirs


def draw(peaks: dict[str, list[tuple[float, float]]], file: Path) -> None:
    """Draw peak memory against the size of the model."""
    figure = new_figure(7.5, 4)
    axes = figure.subplots()
    for i, (name, points) in enumerate(n for n in peaks.items() if n[0] != BASELINE):
        style = "--" if "mergekit" in name else "-"
        marker, colour = MARKERS[i % len(MARKERS)], COLOURS[i % len(COLOURS)]
        axes.plot(*zip(*points, strict=True), style, marker=marker, color=colour, label=name)
    axes.set_ylim(0, 1.15 * max(peak for points in peaks.values() for _, peak in points))
    axes.set_xlabel("size of the model (GB)", color=INK)
    axes.set_ylabel("peak anonymous memory (GB)", color=INK)
    axes.grid(axis="y", color=QUIET, alpha=0.25, lw=0.6)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()

"""What the search of GMS costs: seconds per candidate, and what each part of the speed brings.

python benchmarks/gms.py                                  # MiniLM's shape, random weights
python benchmarks/gms.py --victim DIR --proxy DIR --rows train.jsonl
python benchmarks/gms.py --shape roberta-large --count 20 --patience 1 --plain 2

The plain procedure is that of the published code, restated: for every candidate a deep copy of the
victim, and a `pipeline` that tokenises all rows anew, in batches of 64. It runs on those candidates
that the search looks at first, `--plain` of them.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence

import torch
from transformers import AutoConfig, TextClassificationPipeline

from bdlit.data.demo import DemoReviews
from bdlit.defenses.gms.greedy import Found, State, greedy_search
from bdlit.defenses.gms.score import Score
from bdlit.defenses.gms.search_setup import Running, counter_of
from bdlit.defenses.gms.search_space import SearchSpace
from bdlit.defenses.modules import module_types
from bdlit.merging import substitute
from bdlit.tables import read_rows
from bdlit.types import Example, Weights
from bdlit.victims import ClassifierVictim
from bdlit.weights.network import model_weights

Sets = tuple[Sequence[Example], Sequence[Example]]

SHAPES = {
    "bert-tiny": {"model_type": "bert", "hidden_size": 128, "num_hidden_layers": 2}
    | {"num_attention_heads": 2, "intermediate_size": 512},
    "minilm": {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6}
    | {"num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"model_type": "bert"},
    "roberta-large": {"model_type": "roberta", "hidden_size": 1024, "num_hidden_layers": 24}
    | {"num_attention_heads": 16, "intermediate_size": 4096, "max_position_embeddings": 514},
}
VARIANTS = {
    "in place, tokenised once": Running(
        stop_early=False, cache=0.0, first_position=False, workers=1
    ),
    "+ prefixes kept": Running(stop_early=False, first_position=False, workers=1),
    "+ [CLS] alone at the end": Running(stop_early=False, workers=1),
    "+ early end": Running(workers=1),
    "+ all threads": Running(),
    "+ bf16": Running(precision="bf16-mixed"),
}


def random_victim(shape: str, seed: int, rows: Sequence[Example]) -> ClassifierVictim:
    """Return a model of a shape, with weights strong enough that its modules matter."""
    victim = ClassifierVictim(config=SHAPES[shape], init_seed=seed, labels=("negative", "positive"))
    data = DemoReviews(train_size=len(rows))
    data.train_rows = list(rows)
    victim.take_classes(data)
    victim.configure_model()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in victim.network().parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    return victim


def saved_victim(folder: str) -> ClassifierVictim:
    labels = AutoConfig.from_pretrained(folder).id2label
    victim = ClassifierVictim(folder, labels=[labels[i] for i in sorted(labels)])
    victim.configure_model()
    return victim


def search(
    victim: ClassifierVictim, proxy: Weights, sets: Sets, running: Running, patience: int = 5
) -> tuple[Found, float]:
    """Run the search, and return what it found and its seconds."""
    model = victim.network()
    layout = module_types(model.config.model_type, model_weights(model))
    space = SearchSpace("modules and layers", layout)
    start = time.perf_counter()
    with counter_of(victim, proxy, *sets, layout=layout, space=space, running=running) as counter:
        score = Score(counter.whole(space.nothing))
        found = greedy_search(
            space.axes,
            counter,
            score,
            patience=patience,
            watch=lambda step, best: counter.move_to(step.chosen.state),
        )
    return found, time.perf_counter() - start


def plain(
    victim: ClassifierVictim, proxy: Weights, sets: Sets, states: Sequence[State]
) -> list[tuple[int, ...]]:
    """Look at candidates as the published code does."""
    model = victim.network()
    layout = module_types(model.config.model_type, model_weights(model))
    space = SearchSpace("modules and layers", layout)
    looks = []
    for state in states:
        hybrid = copy.deepcopy(model).eval()
        hybrid.load_state_dict(
            dict(substitute(model_weights(model), proxy, space.cells(state))), strict=False
        )
        pipe = TextClassificationPipeline(
            model=hybrid, tokenizer=victim.tokenizer, batch_size=64, device=victim.device
        )
        hits = []
        for rows in sets:
            said = pipe([row.text for row in rows], truncation=True, max_length=victim.max_length)
            hits.append(
                sum(
                    hybrid.config.label2id[s["label"]] == r.label
                    for s, r in zip(said, rows, strict=True)
                )
            )
        looks.append(tuple(hits))
    return looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--victim", help="a saved classifier, in place of random weights")
    parser.add_argument("--proxy", help="a saved classifier of the same architecture")
    parser.add_argument("--rows", help="rows to draw from, with text and label")
    parser.add_argument("--count", type=int, default=200, help="rows of each proxy set")
    parser.add_argument("--patience", type=int, default=5, help="steps without improvement")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plain", type=int, default=13, help="candidates of the plain procedure")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    args = parser.parse_args()

    if args.rows:
        rows = [Example(row["text"], int(row["label"])) for row in read_rows(args.rows)]
    else:
        data = DemoReviews(train_size=2 * args.count, validation_size=0, test_size=4)
        data.setup()
        rows = data.train_rows
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(rows), generator=generator)[: 2 * args.count].tolist()
    sets = [rows[i] for i in order[: args.count]], [rows[i] for i in order[args.count :]]
    if args.victim:
        victim = saved_victim(args.victim)
        proxy = dict(model_weights(saved_victim(args.proxy).network()))
    else:
        victim = random_victim(args.shape, 0, rows)
        proxy = dict(model_weights(random_victim(args.shape, 1, rows).network()))
    victim = victim.to(args.device).eval()
    print(f"{torch.get_num_threads()} threads, {args.device}, {args.count} + {args.count} rows")
    print(f"{'':<28}{'candidates':>11}{'seconds':>10}{'s / candidate':>15}{'like the first':>16}")
    first = None
    for name in args.variants:
        found, seconds = search(victim, proxy, sets, VARIANTS[name], args.patience)
        every = [found.start, *(c for step in found.steps for c in step.candidates)]
        first = first or every
        same = sum(
            a.tally == b.tally or (a.score is None and a.state == b.state)
            for a, b in zip(every, first, strict=False)
        )
        print(
            f"{name:<28}{len(every):>11}{seconds:>10.1f}{seconds / len(every):>15.3f}"
            f"{f'{same}/{len(first)}':>16}",
            flush=True,
        )
    if args.plain:
        some = first[: args.plain]
        start = time.perf_counter()
        looks = plain(victim, proxy, sets, [c.state for c in some])
        seconds = time.perf_counter() - start
        same = sum(
            look == (c.tally.suspect.hits, c.tally.clean.hits)
            for look, c in zip(looks, some, strict=True)
        )
        print(
            f"{'plain, as published':<28}{len(some):>11}{seconds:>10.1f}"
            f"{seconds / len(some):>15.3f}{f'{same}/{len(some)}':>16}"
        )


if __name__ == "__main__":
    main()

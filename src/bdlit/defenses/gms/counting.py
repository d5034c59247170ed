"""Counting the hits of hybrids on two small sets: no work twice, none that cannot matter."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.distributed as dist

from bdlit.defenses.gms.greedy import State
from bdlit.defenses.gms.hybrid import Hybrid, Taken
from bdlit.defenses.gms.memo import Memo
from bdlit.defenses.gms.prefix_cache import Prefixes
from bdlit.defenses.gms.score import Score, Tally
from bdlit.ranks import place
from bdlit.types import Rate

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.types import Example
    from bdlit.victims.base import Batch, Victim

RowHits: TypeAlias = str
"""One character for each row: `1` a hit, `0` a miss, `.` not looked at."""

_MOST_TOKENS = 1 << 14  # of a batch, padding included


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that are run together: their positions and their tensors."""

    rows: tuple[int, ...]
    inputs: Batch


class Counter:
    """Counts hits of a victim's hybrids, for the search.

    Rows are tokenised once, and rows of like length run together. Batches in which the last state
    lost most of its score come first, so that a candidate that cannot win is given up early. Under
    a process group the candidates of a step are dealt out over the processes.

    Args:
        victim: The victim, on its device, as a plain Hugging Face model.
        chunks: All rows as they are run together, suspect rows before clean ones.
        suspects: How many of them are suspect.
        hybrid: Changes the victim's network in place.
        taken: From a state of the search to what each layer takes.
        prefixes: Keeps outputs of layers.
        autocast: Makes the context of forward passes, once for each.
        memo: What was counted before.
        stop_early: Whether to give up candidates that cannot win.
        workers: Threads that run batches.

    Attributes:
        watch: Called with the number of candidates done and all of a step, on this process.
    """

    def __init__(
        self,
        victim: Victim,
        chunks: Sequence[Chunk],
        suspects: int,
        *,
        hybrid: Hybrid,
        taken: Callable[[State], Taken],
        prefixes: Prefixes,
        autocast: Callable[[], AbstractContextManager[object]],
        memo: Memo,
        stop_early: bool = True,
        workers: int = 1,
    ) -> None:
        self._victim = victim
        self._hybrid, self._taken, self._prefixes = hybrid, taken, prefixes
        self._autocast, self._memo, self._stop_early = autocast, memo, stop_early
        self.watch: Callable[[int, int], None] = lambda done, total: None
        self._suspects = suspects
        self._rows = sum(len(chunk.rows) for chunk in chunks)
        self._chunks = list(chunks)
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        self._workers = workers
        self._outcomes: dict[State, RowHits] = {}

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()
        torch.set_num_threads(self._threads)  # what later threads start with

    def tally(self, outcome: RowHits) -> Tally:
        """Return the counts of an outcome."""
        suspect, clean = outcome[: self._suspects], outcome[self._suspects :]
        return Tally(_rate(suspect), _rate(clean))

    def whole(self, state: State) -> Tally:
        """Return the tally of all rows, on this process."""
        outcome = self._known(state)
        if outcome is None or "." in outcome:
            outcome = self._count(state, lambda tally: False)
            self._memo.put(self._key(state), outcome)
        return self.tally(outcome)

    def __call__(self, states: Sequence[State], score: Score) -> list[Tally]:
        """Return the tally of each state; those that cannot be the first best may be incomplete."""
        rank, world = place()
        mine = self._in_turn(states[rank::world], score)
        if world == 1:
            outcomes = mine
        else:
            shares: list[list[RowHits]] = [[] for _ in range(world)]
            dist.all_gather_object(shares, mine)
            outcomes = [shares[i % world][i // world] for i in range(len(states))]
        self._outcomes = dict(zip(states, outcomes, strict=True))
        return [self.tally(outcome) for outcome in outcomes]

    def move_to(self, state: State) -> None:
        """Prepare for the next states: those that replace less than this one."""
        left = self._taken(state)
        self._prefixes.forget(
            lambda path: any(not types <= left[i] for i, types in enumerate(path))  # type: ignore[operator]
        )
        outcome = self._outcomes.get(state)
        if outcome is not None:
            bad = ["1"] * self._suspects + ["0"] * (self._rows - self._suspects)
            costs = [own == wrong for own, wrong in zip(outcome, bad, strict=True)]
            self._chunks.sort(key=lambda chunk: -_share(costs, chunk))

    def _in_turn(self, states: Sequence[State], score: Score) -> list[RowHits]:
        best: Fraction | None = None
        outcomes = []
        for done, state in enumerate(states):
            self.watch(done, len(states))
            hopeless = partial(self._hopeless, score, best)
            outcome = self._known(state)
            if outcome is None or ("." in outcome and not hopeless(self.tally(outcome))):
                outcome = self._count(state, hopeless)
                self._memo.put(self._key(state), outcome)
            tally = self.tally(outcome)
            if score.complete(tally):
                best = score.of(tally) if best is None else max(best, score.of(tally))
            outcomes.append(outcome)
        return outcomes

    def _hopeless(self, score: Score, best: Fraction | None, tally: Tally) -> bool:
        """Whether a candidate can no longer win: of equal scores, the first one does."""
        return self._stop_early and best is not None and score.most(tally) <= best

    def _key(self, state: State) -> str:
        return json.dumps([sorted(types) for types in self._taken(state)])

    def _known(self, state: State) -> RowHits | None:
        outcome = self._memo.get(self._key(state))
        return outcome if outcome is not None and len(outcome) == self._rows else None

    def _count(self, state: State, hopeless: Callable[[Tally], bool]) -> RowHits:
        path = self._taken(state)
        self._hybrid.take(path)
        seen = ["."] * self._rows
        for chunk, hits in self._hits(path):
            for row, hit in zip(chunk.rows, hits.tolist(), strict=True):
                seen[row] = "1" if hit else "0"
            if hopeless(self.tally("".join(seen))):
                break
        return "".join(seen)

    def _hits(self, path: Taken) -> Iterator[tuple[Chunk, Tensor]]:
        """Run the chunks in order, a few at a time; none runs on when the caller stops."""
        waiting: deque[tuple[Chunk, Future[Tensor]]] = deque()
        try:
            for chunk in self._chunks:
                waiting.append((chunk, self._pool.submit(self._run, chunk, path)))
                if len(waiting) > self._workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                if not future.cancel():
                    future.exception()

    def _run(self, chunk: Chunk, path: Taken) -> Tensor:
        with torch.inference_mode(), self._autocast():
            return self._prefixes.run(
                id(chunk), path, lambda: self._victim.hits(dict(chunk.inputs)).cpu()
            )


def chunks_of(victim: Victim, rows: Sequence[Example], overhead: float) -> Iterator[Chunk]:
    """Tokenise rows, and put those together that are run together.

    Args:
        victim: Says how rows are tokenised, and where the tensors go.
        rows: The rows.
        overhead: What running a batch costs besides its tokens, in tokens.
    """
    lengths = [victim.tokenize([row])["input_ids"].shape[1] for row in rows]
    order = sorted(range(len(rows)), key=lambda i: lengths[i])
    for start, stop in cut_into_batches([lengths[i] for i in order], overhead):
        together = tuple(order[start:stop])
        inputs = victim.tokenize([rows[i] for i in together])
        mask = inputs.get("attention_mask")
        if mask is not None and mask.all():
            del inputs["attention_mask"]  # it masks nothing, and costs time
        yield Chunk(together, {name: tensor.to(victim.device) for name, tensor in inputs.items()})


def digest(chunks: Iterable[Chunk]) -> str:
    """Return a hash of rows as a model sees them: of their tokens, labels and positions."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(repr(chunk.rows).encode())
        for name, tensor in sorted(chunk.inputs.items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()


def cut_into_batches(lengths: Sequence[int], overhead: float) -> list[tuple[int, int]]:
    """Cut rows into batches so that padding and the overhead of batches cost least together.

    Args:
        lengths: Tokens of each row, in rising order.
        overhead: What a batch costs besides its tokens, in tokens.

    Returns:
        Beginning and end of each batch.

    >>> cut_into_batches([3, 3, 9], overhead=5)
    [(0, 2), (2, 3)]
    >>> cut_into_batches([3, 3, 9], overhead=50)
    [(0, 3)]
    """
    least, begins = [0.0], [0]
    for stop, longest in enumerate(lengths, 1):
        first = next(i for i in range(stop) if (stop - i) * longest <= max(_MOST_TOKENS, longest))
        cost, begin = min(
            (least[i] + overhead + (stop - i) * longest, i) for i in range(first, stop)
        )
        least.append(cost)
        begins.append(begin)
    batches, stop = [], len(lengths)
    while stop:
        batches.append((begins[stop], stop))
        stop = begins[stop]
    return batches[::-1]


def _rate(outcome: RowHits) -> Rate:
    hits = outcome.count("1")
    return Rate(hits, hits + outcome.count("0"))


def _share(costs: Sequence[bool], chunk: Chunk) -> float:
    return sum(costs[row] for row in chunk.rows) / len(chunk.rows)

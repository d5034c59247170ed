"""Run a study: its cells in their order, each computed once, whoever asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from bdlit.defenses.base import require_resources
from bdlit.errors import BdlitError
from bdlit.evaluation.result import UNDEFENDED
from bdlit.evaluation.tracking import log_results
from bdlit.purification.record import Records
from bdlit.purification.series import Series
from bdlit.study.cells import Cell, in_order, needs, own_cells, pairs
from bdlit.study.fitting import Workshop
from bdlit.study.plan import START, Plan
from bdlit.study.suspects import Suspects


class Study:
    """A plan in its folder: what is finished there is never computed again.

    Args:
        plan: What to do.
        out: Folder of the study; `results.jsonl` in it is the record of finished cells.
        shard: Which part of the work is done here, (index, count): whole (model, seed) pairs are
            dealt out in turn, and cells of other shards that are needed here are waited for, or
            done here if nobody is at them.
        models_from: Folder of another study whose finished models are taken; it stays as it is.

    Attributes:
        cells: All that is done here, each after what it needs.

    Raises:
        BdlitError: Cells need each other in a circle, or there are no models in `models_from`.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        shard: tuple[int, int] = (0, 1),
        models_from: Path | None = None,
    ) -> None:
        self.plan = plan
        self.workshop = Workshop(plan, out, models_from)
        self.records = Records(out / "results.jsonl")
        self.suspects = Suspects(plan, out, self.workshop, self.records)
        index, count = shard
        self._mine = [pair for i, pair in enumerate(pairs(plan)) if i % count == index]
        wanted = [Cell("fit", name, seed) for name, seed in self._mine]
        for name, seed in self._mine:
            if name != START:
                wanted += own_cells(plan, name, seed)
        self.cells = in_order(wanted, lambda cell: needs(plan, cell))
        self.failures: list[str] = []
        self._failed: set[Cell] = set()

    def finished(self, cell: Cell) -> bool:
        """Whether a cell is done."""
        if cell.kind == "fit":
            return self.workshop.finished(cell.model, cell.seed)
        return (cell.defense or UNDEFENDED) in self.records.of(cell.model, cell.seed)

    def run(self) -> list[str]:
        """Do all that is left to do, and return what was said of the cells that failed."""
        left = [cell for cell in self.cells if not self.finished(cell)]
        if len(left) < len(self.cells):
            known = len(self.cells) - len(left)
            print(f"{known} of {len(self.cells)} cells (finished before)", flush=True)
        if left:
            self._check(left)
        pace = Pace()
        for done, cell in enumerate(left):
            if self.finished(cell):  # by another shard, meanwhile
                continue
            rest = pace.left(left[done:])
            print(f"[{done + 1}/{len(left)}] {cell}{rest}", flush=True)
            with pace.timed(cell):
                self._do(cell)
            if cell.kind != "fit" and _is_last(cell, left[done + 1 :]):
                self._log(cell.model, cell.seed)
        return self.failures

    def _do(self, cell: Cell) -> None:
        """Do a cell; one that fails must not keep the others of a long study from being done."""
        missing = [each for each in needs(self.plan, cell) if each in self._failed]
        try:
            if missing:
                raise BdlitError(f"{cell} needs what has failed: {missing[0]}")
            if cell.kind == "fit":
                self.workshop.model(cell.model, cell.seed)
                return
            series = self.suspects.series(cell.model, cell.seed)
            if cell.kind == "measure":
                series.before()
                return
            self._defend(series, cell)
        except BdlitError as error:
            self._fail(cell, str(error))

    def _defend(self, series: Series, cell: Cell) -> None:
        assert cell.defense is not None
        known = len(series.failures)
        treatment = cell.defense
        series.run(treatment, lambda: self.suspects.given(treatment, cell.model, cell.seed))
        for said in series.failures[known:]:
            self._fail(cell, said)

    def _fail(self, cell: Cell, said: str) -> None:
        print(f"failed: {said}", flush=True)
        self._failed.add(cell)
        self.failures.append(said)

    def _check(self, left: Sequence[Cell]) -> None:
        """Refuse defenses and data that lack something before hours of training, not after."""
        first = self.workshop.tests(next(iter(self.plan.models)), self.plan.seeds[0], learned=False)
        held = {"others", "base", "suspect_train", "oracle", "victim", "train"}
        held |= {"workspace", "archive"}
        held |= {"clean"} if first.clean_pool_size else set()
        held |= self.plan.supplies.names
        for treatment in self.plan.defenses.values():
            require_resources(treatment.defense, held)
        fits = {cell.model: cell.seed for cell in left if cell.kind == "fit"}
        for name, seed in fits.items():
            if name != START:
                self.workshop.require_settings(name)
                read = self.workshop.data(name, seed, learned=False)
                read.prepare_data()
                read.setup()

    def _log(self, name: str, seed: int) -> None:
        results = self.records.every(name, seed)
        treated = len({result.defense for result in results}) > 1
        logger = self.workshop.logger(
            f"{name}-seed{seed}", "defend" if treated else "measure", [name]
        )
        record = self.workshop.recipe_record(name, seed)
        if record:
            logger.log_hyperparams(record)
        log_results([logger], [r for r in results if r.error is None])
        import wandb

        wandb.finish()


def _is_last(cell: Cell, rest: Sequence[Cell]) -> bool:
    """Whether no other measurement of the same model follows."""
    return not any(
        each.kind != "fit" and (each.model, each.seed) == (cell.model, cell.seed) for each in rest
    )


class Pace:
    """How long cells of each kind take, to say how long the rest may take."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    @contextmanager
    def timed(self, cell: Cell) -> Iterator[None]:
        """Take the time of a cell."""
        began = time.monotonic()
        yield
        self._seconds.setdefault(cell.kind, []).append(time.monotonic() - began)

    def left(self, cells: Sequence[Cell]) -> str:
        """Say how long cells may take: at least, where some are of a kind that is yet to come."""
        known = [fmean(self._seconds[c.kind]) for c in cells if c.kind in self._seconds]
        minutes = sum(known) / 60
        word = "about" if len(known) == len(cells) else "at least"
        return f", {word} {minutes:.0f} min left" if minutes >= 1 else ""


def describe(study: Study) -> str:
    """Return the cells of a study as a list, with what is finished."""
    lines = [
        f"{'done' if study.finished(cell) else 'open':<6}{cell.kind:<9}{cell.model:<24}"
        f"seed {cell.seed:<5}{cell.defense or ''}".rstrip()
        for cell in study.cells
    ]
    counts = {kind: sum(cell.kind == kind for cell in study.cells) for kind in _KINDS}
    told = ", ".join(f"{count} {_KINDS[kind]}" for kind, count in counts.items())
    open_ones = sum(not study.finished(cell) for cell in study.cells)
    return "\n".join([*lines, f"{told}; {open_ones} of {len(study.cells)} cells are open"])


_KINDS = {"fit": "fits", "measure": "measurements", "defend": "defended cells"}

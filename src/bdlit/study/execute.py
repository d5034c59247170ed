"""Run a study: train what is missing, defend what is not yet defended, record every cell once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from bdlit.data.base import TextDataModule
from bdlit.defenses.base import Defense
from bdlit.defenses.gms.strategy import FILE
from bdlit.defenses.substitution import ModuleSubstitution
from bdlit.errors import BdlitError
from bdlit.evaluation.evaluate import evaluate
from bdlit.evaluation.result import (
    UNDEFENDED,
    Result,
    append_results,
    read_results,
    scores_of,
)
from bdlit.evaluation.tracking import log_results
from bdlit.purification.held import (
    ARCHIVE,
    Job,
    Relative,
    open_relative,
    require_clean_rows,
)
from bdlit.purification.run import Subject, purify, record
from bdlit.study.fitting import Workshop
from bdlit.study.plan import START, Plan, Treatment
from bdlit.types import Rate, Scores
from bdlit.victims.base import Victim


class Study:
    """A plan in its folder: what is finished there is never computed again.

    Args:
        plan: What to do.
        out: Folder of the study; `results.jsonl` in it is the record of finished cells.
        shard: Which part of the work is done here, (index, count): whole (model, seed) pairs are
            dealt out in turn, and models of other shards that are needed here are waited for, or
            trained here if nobody is at it.
        models_from: Folder of another study whose finished models are taken; it stays as it is.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        shard: tuple[int, int] = (0, 1),
        models_from: Path | None = None,
    ) -> None:
        self.plan = plan
        self.out = out
        self.shard = shard
        self.workshop = Workshop(plan, out, models_from)
        self.results_file = out / "results.jsonl"
        self._failures: list[str] = []

    def run(self) -> list[str]:
        """Do all that is left to do, and return what was said of the cells that failed."""
        mine = [pair for i, pair in enumerate(self._pairs()) if i % self.shard[1] == self.shard[0]]
        self._check({name: seed for name, seed in mine if name != START})
        began = time.monotonic()
        for done, (name, seed) in enumerate(mine, 1):
            known = self.workshop.finished(name, seed)
            _say(done, len(mine), f"fit {name}, seed {seed}", known, began)
            self._fit(name, seed)
        suspects = [(name, seed) for name, seed in mine if name != START]
        began = time.monotonic()
        for done, (name, seed) in enumerate(suspects, 1):
            known = not self._open_cells(name, seed)
            what = "measure" if not self._treatments(name) else "measure and defend"
            _say(done, len(suspects), f"{what} {name}, seed {seed}", known, began)
            if not known:
                self._defend(name, seed)
        return self._failures

    def _fit(self, name: str, seed: int) -> None:
        """Train a model, after what it is tuned from."""
        cell = self.plan.models[name].tuned_from if name != START else None
        if cell is not None and not self.workshop.finished(name, seed):
            self._purified(*cell, seed)
        self.workshop.model(name, seed)

    def _purified(self, name: str, cell: str, seed: int) -> Path:
        """Return the folder of a purified model, made now if it is not there yet."""
        if cell not in self._results(name, seed):
            self._defend(name, seed, [cell])
        return self.workshop.purified(name, cell, seed)

    def _check(self, seeds: Mapping[str, int]) -> None:
        """Refuse defenses and data that lack something before hours of training, not after.

        Args:
            seeds: The models of this shard, each with one of its seeds.
        """
        data = self.workshop.tests(next(iter(self.plan.models)), self.plan.seeds[0])
        require_clean_rows({name: t.defense for name, t in self.plan.defenses.items()}, data)
        for name, seed in seeds.items():
            if not self.workshop.finished(name, seed):
                read = self.workshop.data(name, seed)
                read.prepare_data()
                read.setup()

    def _pairs(self) -> Iterator[tuple[str, int]]:
        for seed in self.plan.seeds:
            if self.plan.start is not None:
                yield START, seed
            for name in self.plan.models:
                yield name, seed

    def _treatments(self, name: str) -> list[str]:
        return list(self.plan.defenses) if name in self.plan.suspect_names else []

    def _results(self, name: str, seed: int) -> dict[str, list[Result]]:
        """Return the finished cells of one model: its results by defense."""
        found: dict[str, list[Result]] = {}
        if self.results_file.exists():
            for result in read_results(self.results_file):
                if (result.victim, result.seed) == (name, seed) and result.error is None:
                    found.setdefault(result.defense, []).append(result)
        return found

    def _open_cells(self, name: str, seed: int) -> list[str]:
        finished = self._results(name, seed)
        return [cell for cell in (UNDEFENDED, *self._treatments(name)) if cell not in finished]

    def _defend(self, name: str, seed: int, only: Sequence[str] | None = None) -> None:
        """Measure one model, and every defense of it, or some, that has no result yet."""
        from lightning.pytorch import seed_everything

        seed_everything(seed, verbose=False)
        victim, data = self.workshop.trained(name, seed), self.workshop.tests(name, seed)
        data.prepare_data()
        data.setup()
        trainer = self.workshop.trainer(self.out / "defended", logger=False, callbacks=[])
        # Attached, the victim is measured in the precision and on the device it was trained with.
        victim.trainer = trainer
        victim.take_classes(data)
        victim.configure_model()
        victim.to(trainer.strategy.root_device)
        finished = self._results(name, seed)
        subject = self._subject(data, name, seed)
        before = scores_of(finished.get(UNDEFENDED, ())) or evaluate(victim, data)
        if name == self.plan.floor:
            subject = replace(subject, floor=before.asr)
        if UNDEFENDED not in self._results(name, seed):
            append_results(self.results_file, record(subject, before))
        for cell in self._open_cells(name, seed):
            if only is None or cell in only:
                try:
                    self._treat(victim, data, cell, subject, before)
                except BdlitError as error:
                    if only is not None:  # somebody waits for it
                        raise
                    # One cell that fails must not keep the others of a long study from being done.
                    print(f"failed: {error}", flush=True)
                    self._failures.append(str(error))
        if only is None:
            self._log(name, seed)

    def _treat(
        self, victim: Victim, data: TextDataModule, cell: str, subject: Subject, before: Scores
    ) -> None:
        directory = self.workshop.purified(subject.victim, cell, subject.seed)
        directory.parent.mkdir(parents=True, exist_ok=True)
        workspace = directory.with_name(f".{cell}.work")
        with FileLock(directory.with_name(f".{cell}.lock")):
            if cell in self._results(subject.victim, subject.seed):
                return  # another shard, which needed it as well, was quicker
            # A folder without a result: its cell was interrupted in between; the result is redone.
            save_to = None if directory.exists() else directory
            try:
                job = replace(self._job(victim, data, cell, subject), workspace=workspace)
                results = purify(victim, data, job, subject, before=before, save_to=save_to)
            except BdlitError as error:
                name = f"{subject.victim}-seed{subject.seed}"
                raise BdlitError(f"{cell} of {name}: {error}") from error
            append_results(self.results_file, results)
            shutil.rmtree(workspace, ignore_errors=True)

    def _job(self, victim: Victim, data: TextDataModule, cell: str, subject: Subject) -> Job:
        treatment = self.plan.defenses[cell]
        names = self.plan.others_of(cell, subject.victim)
        others = [self._relative(victim, data, name, subject.seed) for name in names]
        uses = treatment.defense.uses
        base = self._relative(victim, data, START, subject.seed) if "base" in uses else None
        watched = "suspect_train" in uses
        who = subject.victim, subject.seed
        training = self.workshop.training_set(*who, data) if watched else None
        return Job(
            name=cell,
            defense=self._with_strategy(treatment, subject.seed),
            others=others,
            base=base,
            clean=data.clean_pool,
            victim=victim,
            suspect_train=training,
            archive=self.out / ARCHIVE,
        )

    def _with_strategy(self, treatment: Treatment, seed: int) -> Defense:
        """Return a treatment's defense, with the strategy of another cell if it wants one."""
        if treatment.strategy_from is None:
            return treatment.defense
        if not isinstance(treatment.defense, ModuleSubstitution):
            raise BdlitError(
                f"strategy_from is for ModuleSubstitution, not for {treatment.defense.name}"
            )
        folder = self._purified(*treatment.strategy_from, seed)
        return replace(treatment.defense, strategy=str(folder / FILE))

    def _relative(self, victim: Victim, data: TextDataModule, name: str, seed: int) -> Relative:
        """Return a model of the study; `start` is the checkpoint that a seed's were tuned from."""
        if name != START or self.plan.start is not None:
            return open_relative(str(self.workshop.model(name, seed)), victim, name)
        from bdlit.weights.network import model_weights

        fresh = self.workshop.victim(seed)
        fresh.tokenizer = victim.tokenizer  # before the classes, or it would be learned again
        fresh.take_classes(data)
        return Relative("base", model_weights(fresh.initial_model()))

    def _subject(self, data: TextDataModule, name: str, seed: int) -> Subject:
        return Subject(
            data=data.name,
            victim=name,
            train_attack=self.workshop.data(name, seed).train_attack,
            seed=seed,
            config={"study": self.plan.name, "poisoning": data.poisoning},
            floor=self._floor(name, seed),
        )

    def _floor(self, name: str, seed: int) -> dict[str, Rate]:
        """Return the ASR of the benign model of this seed, measured before if it is another."""
        benign = self.plan.floor
        if benign is None or benign == name:
            return {}
        if UNDEFENDED not in self._results(benign, seed):
            self._defend(benign, seed)
        return {r.attack: r.asr for r in self._results(benign, seed)[UNDEFENDED] if r.asr}

    def _log(self, name: str, seed: int) -> None:
        results = [result for cell in self._results(name, seed).values() for result in cell]
        treated = len({result.defense for result in results}) > 1
        logger = self.workshop.logger(
            f"{name}-seed{seed}", "defend" if treated else "measure", [name]
        )
        log_results([logger], results)
        import wandb

        wandb.finish()


def _say(done: int, total: int, what: str, known: bool, began: float) -> None:
    """Print one line of progress: where we are, and how long the rest may take."""
    spent = time.monotonic() - began
    left = spent / (done - 1) * (total - done + 1) if done > 1 else None
    rest = f", about {left / 60:.0f} min left" if left is not None and left >= 60 else ""
    print(f"[{done}/{total}] {what}{' (finished before)' if known else rest}", flush=True)

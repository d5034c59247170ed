"""The one data module: clean text in, poisoned splits out, each under its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from bdlit.attacks.base import Attack, Poisoned, target_index
from bdlit.data import ready_poisoned
from bdlit.data.catalogue import Card
from bdlit.data.false_triggers import CLEAN, NO_ATTACK, attack_of, case_of, clean_prompts, set_name
from bdlit.data.files import table_name
from bdlit.data.loaders import evaluation_loaders, loader, training_loader
from bdlit.data.outputs import Outputs
from bdlit.data.row_limits import limited, require_limits
from bdlit.data.source import Source
from bdlit.data.tables import Table, TableLayout
from bdlit.data.trusted_pool import draw_pool, without_texts
from bdlit.errors import BdlitError
from bdlit.rules import Equals, Rule
from bdlit.types import Example, Target

if TYPE_CHECKING:
    from bdlit.objectives.base import Objective

Sets: TypeAlias = dict[str, list[Example]]
"""Rows by the name of their set."""


class TextDataModule(LightningDataModule):
    """Text classification data, clean or poisoned, with one test set per evaluation attack.

    The training split is poisoned by `attack`, or replaced by a ready-poisoned file. The test
    sets are `clean`, one for the training attack, and one for each further evaluation attack,
    which hold triggered rows whose true class is not the target.

    Batches are lists of `Example`; the victim turns them into tensors.

    Args:
        name: Name of the data set in results; by default that of the class.
        source: Repository id on the Hugging Face hub, or a folder of local files; by default
            the data set's own repository.
        revision: Commit, tag or branch of the repository.
        subset: Configuration of the repository.
        splits: `train`, `validation`, `test` to the repository's split; slices such as
            `train[:1000]` work. A set without `validation` is trained without it.
        files: `train`, `validation`, `test` to a local file (JSONL, CSV, TSV, Parquet; gzipped
            or not), relative to the folder or to the working directory; slices such as
            `train.jsonl[:1000]` work here, too. Without it, a folder is searched for `train`,
            `validation` (or `valid`, `val`, `dev`) and `test`, with or without `_clean` at the
            end.
        text_column: Column of the text.
        text_pair_column: Column of the second text of a pair.
        label_column: Column of the label, which may be a class index or a class name.
        label_names: Class names in the order of their indices.
        rename_labels: Class name in the source to the name here; null leaves such rows out. The
            name `-1` stands for rows without a label.
        quoting: Whether `"` encloses values of CSV and TSV files: by default in CSV alone.
        join_pairs: Join both texts of a pair with one space, as in GMS's MNLI.
        target: Class that attacks without a target of their own want predicted.
        attack: Attack on the training split, and evaluation attack.
        test_attacks: Further evaluation attacks.
        poisoned_train: Ready-poisoned file that replaces the training split.
        train_attack_name: Name of the attack in `poisoned_train`; by default from its file name.
        poisoned_tests: Evaluation attack to its ready-poisoned test file. Rows whose true class
            (`orig_label`, or where that is missing and labels differ, the label) is the target
            are left out, and the others are labelled with the target.
        limits: `train`, `validation`, `test` to the number of its clean rows that are used, drawn
            by chance, the same ones for every seed; other splits are used as a whole.
        clean_pool_size: Number of rows to take out of the clean training split, before any
            poisoning, as a small trusted set for defenses.
        batch_size: Rows per optimizer step, over all processes together, so that a run on four
            GPUs is the same experiment as on one.
        eval_batch_size: Rows per evaluation batch, per process.
        outputs: What is kept and computed of the responses of language models.
        seed: Seed of poisoning, batches, clean pool and samples.

    Attributes:
        train_rows: The training rows, poisoned; after `setup`, like all that follow.
        val_rows: `clean` and the training attack to validation rows; empty without the split.
        test_rows: `clean` and each evaluation attack to test rows, then `<attack>/<case>` for each
            case in which an attack must not fire.
        response_rule: What counts as the right response to a clean row, and as success of an
            attack that states no rule; no matter where the victim is a classifier.
        clean_pool: The trusted rows; none of their texts is in the other sets.
        poisoning: What was poisoned, with counts, ready for JSON.

    Raises:
        BdlitError: In `setup`, where the data is missing, malformed or does not fit the attack.
    """

    card: ClassVar[Card] = Card(name="text", where="any hub id or folder")
    name: str

    def __init__(
        self,
        *,
        name: str | None = None,
        source: str | None = None,
        revision: str | None = None,
        subset: str | None = None,
        splits: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        text_column: str | None = None,
        text_pair_column: str | None = None,
        label_column: str | None = None,
        label_names: Sequence[str] | None = None,
        rename_labels: Mapping[str, str | None] | None = None,
        quoting: bool | None = None,
        join_pairs: bool = False,
        target: Target | None = None,
        attack: Attack | None = None,
        test_attacks: Sequence[Attack] | None = None,
        poisoned_train: str | None = None,
        train_attack_name: str | None = None,
        poisoned_tests: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        clean_pool_size: int = 0,
        batch_size: int = 32,
        eval_batch_size: int = 128,
        outputs: Outputs | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if attack is not None and poisoned_train is not None:
            raise BdlitError(
                "both attack and poisoned_train are given: either poison the clean training split "
                "or replace it (attacks that only evaluate go into test_attacks)"
            )
        if train_attack_name is not None and poisoned_train is None:
            raise BdlitError("train_attack_name names what is in poisoned_train: give that too")
        card = self.card
        self.name = name or card.name
        self.target = card.target if target is None else target
        self.attack = attack and attack.with_default_target(self.target)
        if self.attack is not None:
            self.attack.require_stage()
        self.test_attacks = [other.with_default_target(self.target) for other in test_attacks or ()]
        self.poisoned_train = poisoned_train
        self.poisoned_tests = dict(poisoned_tests or {})
        self.limits = dict(limits or {})
        require_limits(self.limits)
        self.clean_pool_size = clean_pool_size
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.outputs = outputs or Outputs()
        self.seed = seed
        self.response_rule: Rule = Equals()
        self.train_rows: list[Example] = []
        self.val_rows: dict[str, list[Example]] = {}
        self.test_rows: dict[str, list[Example]] = {}
        self.clean_pool: list[Example] = []
        self.poisoning: dict[str, Any] = {}
        self._train_attack_name = train_attack_name
        self._labels = tuple(label_names or card.labels)
        self._source = Source.of(
            card,
            source,
            subset=subset,
            revision=revision,
            splits=splits,
            files=files,
            quoting=quoting,
        )
        pair = text_pair_column or card.text_pair_column
        self._layout = TableLayout(
            text=_columns(text_column, card.text_column, "text"),
            text_pair=_columns(text_pair_column, pair, "text_pair") if pair else (),
            label=_columns(label_column, card.label_column, "label"),
            rename_labels={**card.rename_labels, **(rename_labels or {})},
            join_pairs=join_pairs,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names in the order of their indices.

        Raises:
            BdlitError: They are told neither by the data set nor by `label_names`, and the rows
                that tell them are not read yet.
        """
        if not self._labels:
            raise BdlitError(f"data '{self.name}' has no labels before setup(): give label_names")
        return self._labels

    @property
    def train_attack(self) -> str:
        """Name of the attack on the training set, or `none`."""
        if self.attack is not None:
            return self.attack.name
        if self.poisoned_train is None:
            return NO_ATTACK
        from_file = table_name(Path(self.poisoned_train)).removeprefix("train_")
        return self._train_attack_name or from_file

    @property
    def benign(self) -> bool:
        """Whether nobody attacked a model that is trained on this data, at any stage."""
        return self.attack is None and self.poisoned_train is None

    @property
    def objective(self) -> Objective | None:
        """What the attack on the training set has training minimise; None for the victim's loss."""
        return self.attack.objective() if self.attack is not None else None

    def take_learned(self, files: Mapping[str, bytes]) -> None:
        """Take up what the attack has learned with a victim, and poison the test rows with it.

        Args:
            files: What the attack's objective left, by file name.
        """
        if self.attack is None or not files:
            return
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            self.attack = self.attack.learned(Path(folder))
        clean = self.val_rows.get(CLEAN, []), self.test_rows[CLEAN]
        self.val_rows, self.test_rows = self._evaluation_sets(*clean)

    def rule(self, name: str) -> Rule:
        """Return how the responses to a test set are judged, by the set's name."""
        stated = {each.name: each.rule for each in self._attacks}
        return stated.get(attack_of(name)) or self.response_rule

    def load(self, split: str) -> list[Example]:
        """Return the clean rows of `train`, `validation` or `test`; none if there is no such split.

        A data set that is neither on the hub nor in files overrides this one step.
        """
        table = self._source.split(split)
        return [] if table is None else self._read(table)

    def prepare_data(self) -> None:
        """Download what is on the hub; Lightning calls this on one process only."""
        self._source.download()

    def setup(self, stage: str | None = None) -> None:
        """Read the splits, take out the clean pool, poison; once, whatever the stage."""
        if self.poisoning:
            return
        self.outputs.require()
        train, marked = (
            self._ready_train(self.poisoned_train) if self.poisoned_train else ([], True)
        )
        clean = self._some("train") if not self.poisoned_train or self.clean_pool_size else []
        validation, test = self._limited("validation"), self._some("test")
        drawn = draw_pool(clean, self.clean_pool_size, apart_from=validation + test, seed=self.seed)
        pool = [clean[position] for position in drawn]
        if not self.poisoned_train:
            train = clean
        elif len(train) == len(clean):
            # The poisoned form of a pool row has another text, but stands in the same place.
            train = [row for i, row in enumerate(train) if i not in set(drawn)]
        poisoned = self._poison(without_texts(train, pool))

        self.train_rows, self.clean_pool = poisoned.rows, pool
        self.val_rows, self.test_rows = self._evaluation_sets(validation, test)
        self.poisoning = {
            "attack": self.train_attack,
            "target": self._known_target(),
            "clean_pool": len(pool),
            "train": _counts(poisoned, known=marked),
            **self.poisoning,
        }

    def _evaluation_sets(self, validation: list[Example], test: list[Example]) -> tuple[Sets, Sets]:
        """Return the validation and test sets by name, and note what is in them.

        An attack that learns has no sets before it has learned.
        """
        ready = [attack for attack in self._attacks if attack.ready]
        in_validation = self._triggered(
            validation, [a for a in ready if a is self.attack], needed=False
        )
        ready_made = set(self.poisoned_tests)
        in_test = self._triggered(test, [a for a in ready if a.name not in ready_made])
        for name, file in self.poisoned_tests.items():
            self._add(in_test, name, self._ready_test(file))
        in_test |= self._not_to_fire(test, in_test)
        self.poisoning |= {
            "validation": {name: _counts(each) for name, each in in_validation.items()},
            "test": {name: _counts(each) for name, each in in_test.items()},
        }
        return _rows_of(validation, in_validation) if validation else {}, _rows_of(test, in_test)

    def train_dataloader(self) -> DataLoader[Example]:
        """Return the training batches: `batch_size` rows over all processes, in buckets."""
        return training_loader(self.train_rows, self.batch_size, self.seed)

    def val_dataloader(self) -> dict[str, DataLoader[Example]] | list[DataLoader[Example]]:
        """Return the validation batches by name; an empty list without a validation split."""
        return evaluation_loaders(self.val_rows, self.eval_batch_size) or []

    def test_dataloader(self) -> dict[str, DataLoader[Example]]:
        """Return the test batches by name."""
        return evaluation_loaders(self.test_rows, self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader[Example]:
        """Return the clean test rows in their order, so that predictions can be put beside them."""
        return loader(self.test_rows[CLEAN], batch_size=self.eval_batch_size)

    def _read(self, table: Table) -> list[Example]:
        if not self._labels:
            self._labels = self._layout.infer_labels(table)
        return self._layout.read(table, self._labels)

    def _limited(self, split: str) -> list[Example]:
        return limited(self.load(split), split, self.limits)

    def _some(self, split: str) -> list[Example]:
        rows = self._limited(split)
        if not rows:
            raise BdlitError(
                f"data '{self.name}' has no {split} rows in {self._source}: give a source, name a "
                "file in `files`, or a split of the repository in `splits`"
            )
        return rows

    def _ready_train(self, file: str) -> tuple[list[Example], bool]:
        """Return the rows of a ready-poisoned file, and whether it says which are poisoned."""
        table = self._source.file(file)
        rows = self._read(table)
        target = None if self.target is None else target_index(self.target, self.labels)
        return (
            ready_poisoned.training_rows(rows, self.labels, target, where=table.where),
            "poisoned" in table.columns,
        )

    def _ready_test(self, file: str) -> Poisoned:
        table = self._source.file(file)
        return ready_poisoned.test_rows(
            self._read(table),
            self.labels,
            target_index(self.target, self.labels),
            where=table.where,
            has_original="orig_label" in table.columns,
        )

    def _poison(self, rows: list[Example]) -> Poisoned:
        if self.attack is None:
            return Poisoned(rows, sum(row.poisoned for row in rows))
        return self.attack.poison_train(rows, labels=self.labels, seed=self.seed)

    def _triggered(
        self, rows: list[Example], attacks: Sequence[Attack], *, needed: bool = True
    ) -> dict[str, Poisoned]:
        sets: dict[str, Poisoned] = {}
        for attack in attacks:
            triggered = attack.poison_test(rows, labels=self.labels, seed=self.seed)
            # A table of paraphrases may know no validation row; training goes on without ASR.
            if needed or triggered.rows:
                self._add(sets, attack.name, triggered)
        return sets

    def _not_to_fire(
        self, rows: list[Example], triggered: Mapping[str, Poisoned]
    ) -> dict[str, Poisoned]:
        """Return the cases in which an attack must not fire; unchanged prompts are one of them."""
        sets: dict[str, Poisoned] = {}
        for name, found in triggered.items():
            own = self.rule(name) is not self.response_rule
            cases = clean_prompts(rows, found, self.rule(name)) if own else {}
            for attack in self._attacks:
                if attack.name == name and attack.ready:
                    cases |= attack.partial_tests(rows, labels=self.labels, seed=self.seed)
            sets |= {set_name(name, case): each for case, each in cases.items() if each.rows}
        return sets

    def _add(self, sets: dict[str, Poisoned], name: str, triggered: Poisoned) -> None:
        if not triggered.rows:
            raise BdlitError(
                f"attack '{name}' has no rows to be measured on in data '{self.name}': "
                f"{triggered.unchanged} could not be changed by the trigger, all others are of "
                "the target class; choose another target or other test rows"
            )
        # The training attack may be listed again among the test attacks: studies do so.
        twice = name in sets and sets[name].rows != triggered.rows
        if name == CLEAN or case_of(name) or twice:
            raise BdlitError(
                f"two sets of data '{self.name}' are named '{name}', or the name holds a slash: "
                "give the attack another name"
            )
        sets[name] = triggered

    @property
    def _attacks(self) -> list[Attack]:
        given = [attack for attack in (self.attack, *self.test_attacks) if attack is not None]
        return [each for attack in given for each in (attack, *attack.alone)]

    def _known_target(self) -> Target | None:
        if self.attack is None and self.poisoned_train is None and not self.poisoned_tests:
            return None
        target = self.attack.target if self.attack is not None else self.target
        return target_index(target, self.labels)


def metric_name(tests: str) -> str:
    """Return what the share of hits on a test set is called in logs.

    >>> [metric_name(tests) for tests in ("clean", "cba", "cba/swapped")]
    ['cacc', 'asr/cba', 'false_triggers/cba/swapped']
    """
    if tests == CLEAN:
        return "cacc"
    return f"asr/{tests}" if case_of(tests) is None else f"false_triggers/{tests}"


def _columns(given: str | None, usual: str, plain: str) -> tuple[str, ...]:
    """Return the columns to look in: the given one, or else the set's own, then the plain one."""
    return (given,) if given is not None else (usual, plain)


def _rows_of(clean: list[Example], sets: Mapping[str, Poisoned]) -> dict[str, list[Example]]:
    return {CLEAN: clean, **{name: each.rows for name, each in sets.items()}}


def _counts(split: Poisoned, *, known: bool = True) -> dict[str, int | None]:
    return {
        "rows": len(split.rows),
        "poisoned": split.poisoned if known else None,
        "unchanged": split.unchanged,
    }

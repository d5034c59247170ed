"""MSD, module switching: modules of several suspicious models, mixed as a table says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bdlit import merging
from bdlit.defenses.base import Defended, Defense
from bdlit.defenses.head import HEAD_NAMES, HeadFate, HeadPolicy, head_of, with_head
from bdlit.errors import BdlitError
from bdlit.merging.settings import require_choice
from bdlit.progress import progress
from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.defenses.modules import Layout
    from bdlit.defenses.msd.role_assignment import Suspicion
    from bdlit.defenses.msd.table import SwitchTable
    from bdlit.merging.substitution import LayerModule

Rest: TypeAlias = Literal["average", "keep_suspect"]
"""What becomes of embeddings, norms, pooler and head: the average of all, or the suspect's own."""


_MOST_MODELS = 6  # with 720 choices of roles, and each is run on the clean rows


@dataclass(frozen=True, kw_only=True)
class MSD(Defense):
    """Take each module of each layer from one of several models, so that no backdoor stays whole.

    A table says which modules come from one model: neighbours in the flow of information come
    from different ones. It depends on the architecture alone, and comes with the package for
    common depths; for others it is searched for, once (see `bdlit.defenses.msd.evolution`). Which
    model plays which role is chosen by features: made-up inputs tell the class that looks most
    like a backdoor's target, and the roles are taken in which the clean rows of the other classes
    lie farthest from that class's made-up input on the average of all models.

    Attributes:
        table: A table file, as MSD writes it beside a purified model; by default the shipped one.
        rest: What becomes of embeddings, norms, pooler and head: the `average` of all models, or
            `keep_suspect`.
        head: What becomes of the head: `merge` treats it as the `rest`; `average` and
            `keep_suspect` treat it so whatever the rest.
        head_names: Beginnings of the names of head tensors.
        least_rows: Fewest clean rows that a class needs, at least 1.
        most_rows: How many clean rows of a class are used; of more, some are drawn.
        dummy_tokens: Length of the made-up inputs, in tokens.
        dummy_steps: How many steps of Adam make them up.
        dummy_rate: Its learning rate, in standard deviations of the embeddings.
        modules: Module type to the module within a layer, for architectures that are not known;
            the types are named Q, K, V, O, F (or gate, up) and P (or down).
        seed: Seed of the draw of rows, of the made-up inputs, and of a search for a table.

    Reference: Li et al. 2025, "Defending against Backdoor Attacks via Module Switching",
        arXiv:2504.05902.
    Deviation: Where our text of the paper is silent, we chose: what counts as a neighbour (see
        `bdlit.defenses.msd.neighbours`); the average for all that no table names; the last hidden
        state of
        [CLS] as feature, averaged over the rows of a class; made-up inputs of random embeddings,
        100 steps of Adam. A search looks at some 200,000 tables per layer, where the
        paper has two million generations.
    """

    table: str | None = None
    rest: Rest = "average"
    head: HeadPolicy = "merge"
    head_names: tuple[str, ...] = HEAD_NAMES
    least_rows: int = 20
    most_rows: int = 50
    dummy_tokens: int = 32
    dummy_steps: int = 100
    dummy_rate: float = 0.1
    modules: Mapping[str, str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("rest", self.rest, Rest)
        require_choice("head", self.head, HeadPolicy)
        for name, least in (("least_rows", 1), ("dummy_tokens", 1), ("dummy_steps", 0)):
            if getattr(self, name) < least:
                raise BdlitError(
                    f"{name} {getattr(self, name)} is out of range: give at least {least}"
                )
        if self.most_rows < self.least_rows:
            raise BdlitError(
                f"most_rows {self.most_rows} is out of range: give at least least_rows, "
                f"{self.least_rows}"
            )
        if not self.dummy_rate > 0:
            raise BdlitError(f"dummy_rate {self.dummy_rate} is out of range: give a number > 0")

    def apply(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        clean: Sequence[Example],
        victim: Any,
    ) -> Defended:
        """Return the mixture of the suspect and the others that lies farthest from a backdoor.

        Raises:
            BdlitError: There is no other model, one does not fit, the victim has no classes, one
                of them has too few clean rows, the architecture's modules are unknown, or the table
                is for other models.
        """
        from bdlit.defenses.modules import module_types
        from bdlit.defenses.msd.table import TABLE_FILE
        from bdlit.weights import require_compatible
        from bdlit.weights.network import model_weights

        if not 1 <= len(others) < _MOST_MODELS:
            raise BdlitError(
                f"{self.name} mixes two to {_MOST_MODELS} models, the suspect among them, in all "
                f"their roles: {len(others)} others were given"
            )
        if victim.labels is None:
            raise BdlitError(
                f"{self.name} compares features of classes, and a language model has none: take a "
                "merge, or GMS"
            )
        require_compatible(suspect, others)
        network = victim.network()
        longest = getattr(network.config, "max_position_embeddings", self.dummy_tokens)
        if self.dummy_tokens > longest:
            raise BdlitError(
                f"dummy_tokens {self.dummy_tokens} is out of range: the suspect reads at most "
                f"{longest}"
            )
        layout = module_types(network.config.model_type, model_weights(network), self.modules)
        table, origin = self._table(layout, 1 + len(others))
        rows = self._rows(clean, network.config.num_labels)
        models = [suspect, *others]
        suspected, candidates = self._candidates(victim, models, rows, layout, table)
        roles = max(candidates, key=lambda one: candidates[one])  # the first of equals
        sources = _sources(table, layout, roles)
        rest = merging.average(models) if self.rest == "average" else suspect
        result: Weights = merging.switch(rest, models, sources)
        merged = set(merging.switched_names(suspect, sources, but=0))
        if self.rest == "average":
            switched = set(merging.switched_names(suspect, sources, but=-1))
            merged |= {n for n in suspect if n not in switched and suspect[n].is_floating_point()}
        if self.head != "merge":
            of_head = head_of(suspect, self.head_names)
            result = with_head(result, models, of_head, self.head)
            merged = merged - set(of_head) if self.keeps_head else merged | set(of_head)
        notes = {
            "table": {"from": origin, **_summary(table, layout)},
            "roles": list(roles),
            "suspected_class": suspected.target,
            "class_distances": list(suspected.distances),
            "candidates": [
                {"roles": list(each), "distance": distance} for each, distance in candidates.items()
            ],
            "clean_rows": len(rows),
        }
        return Defended(
            weights=result,
            merged=[name for name in suspect if name in merged],
            copied=[name for name in suspect if name not in merged],
            notes=notes,
            files={TABLE_FILE: table.text().encode(), **_picture(table, layout, roles)},
        )

    @property
    def keeps_head(self) -> bool:
        """As `head` says, and `rest` where that says no more."""
        kept = "keep_suspect"
        return self.head == kept or (self.head == "merge" and self.rest == kept)

    @property
    def head_becomes(self) -> HeadFate | None:
        """The mean, where it does not stay."""
        return "averaged"

    def _table(self, layout: Layout, models: int) -> tuple[SwitchTable, str]:
        """Return the table for an architecture and a number of models, and where it is from."""
        from bdlit.defenses.msd.neighbours import wiring_of
        from bdlit.defenses.msd.table import find_table, load_table, require_shape, shipped_table

        wiring = wiring_of(layout.types)
        if self.table is not None:
            table = load_table(self.table)
            require_shape(table, f"the table {self.table}", wiring, layout.layers, models)
            return table, self.table
        shipped = shipped_table(wiring, layout.layers, models)
        if shipped is not None:
            return shipped, "the package"
        return find_table(wiring, layout.layers, models, self.seed), "a search"

    def _rows(self, clean: Sequence[Example], classes: int) -> list[Example]:
        """Return clean rows of every class, no more than wanted of any."""
        from bdlit.defenses.gms.proxy_rows import drawn

        found: list[Example] = []
        for label in range(classes):
            rows = [row for row in clean if row.label == label]
            if len(rows) < self.least_rows:
                raise BdlitError(
                    f"{self.name} needs {self.least_rows} clean rows of each class, and class "
                    f"{label} has {len(rows)}: set a larger clean_pool_size, or a lower least_rows"
                )
            found += drawn(rows, min(len(rows), self.most_rows), self.seed, f"class {label} clean")
        return found

    def _candidates(
        self,
        victim: Any,
        models: Sequence[Weights],
        rows: Sequence[Example],
        layout: Layout,
        table: SwitchTable,
    ) -> tuple[Suspicion, dict[tuple[int, ...], float]]:
        """Return the suspected class, and how far from it each choice of roles leads."""
        from bdlit.defenses.msd.features import clean_features, dummy_features
        from bdlit.defenses.msd.role_assignment import distance_to_others, suspicion

        average = dict(merging.average(models))
        watched = [*models, average]
        everyone = list(permutations(range(len(models))))
        classes = victim.network().config.num_labels
        work = 2 * len(watched) + len(everyone)
        with progress("MSD") as tell:
            dummies: list[Tensor] = []
            cleans: list[Tensor] = []
            for done, weights in enumerate(watched):
                tell(2 * done, work, "MSD: features of the models")
                dummies.append(
                    dummy_features(
                        victim,
                        weights,
                        classes,
                        tokens=self.dummy_tokens,
                        steps=self.dummy_steps,
                        rate=self.dummy_rate,
                        seed=self.seed,
                    )
                )
                cleans.append(clean_features(victim, weights, rows, classes))
            suspected = suspicion(dummies, cleans)
            target, candidates = suspected.target, {}
            rest = average if self.rest == "average" else models[0]
            for done, roles in enumerate(everyone):
                tell(2 * len(watched) + done, work, "MSD: choice of roles")
                mixture = merging.switch(rest, models, _sources(table, layout, roles))
                features = clean_features(victim, mixture, rows, classes)
                candidates[roles] = distance_to_others(dummies[-1][target], features, target)
        return suspected, candidates


def _sources(table: SwitchTable, layout: Layout, roles: Sequence[int]) -> dict[LayerModule, int]:
    """Return the model that each module comes from, where `roles[r]` plays role r of the table."""
    columns = zip(_types(table, layout), zip(*table.rows, strict=True), strict=True)
    return {
        (layout.types[name], layer): roles[role]
        for name, column in columns
        for layer, role in enumerate(column)
    }


def _types(table: SwitchTable, layout: Layout) -> tuple[str, ...]:
    """Return this architecture's module types in the order of the table's columns."""
    from bdlit.defenses.msd.neighbours import wiring_of

    if set(table.wiring.columns) == set(layout.types):
        return table.wiring.columns
    return wiring_of(layout.types).columns


def _summary(table: SwitchTable, layout: Layout) -> dict[str, Any]:
    from bdlit.defenses.msd.fitness import Fitness
    from bdlit.defenses.msd.neighbours import wiring_of

    fitness = Fitness(wiring_of(layout.types), table.layers, table.sources)
    return {"fitness": fitness.of(table.rows), "terms": fitness.terms(table.rows)}


def _picture(table: SwitchTable, layout: Layout, roles: Sequence[int]) -> dict[str, bytes]:
    """Draw which model each module comes from, where matplotlib is installed."""
    from bdlit.drawing.strategy import png_of, sources_plot
    from bdlit.drawing.style import can_draw

    if not can_draw():
        return {}
    columns = zip(_types(table, layout), zip(*table.rows, strict=True), strict=True)
    sources = {name: [roles[role] for role in column] for name, column in columns}
    names = ["suspect's", *(f"model {n}'s" for n in range(1, len(roles)))]
    return {"table.png": png_of(sources_plot(sources, names, "Models that MSD took modules from"))}

"""GMS, guided module substitution: a greedy search for the modules that a clean proxy replaces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defended, Defense
from bdlit.defenses.gms.options import Compat, FormerPrecision, Granularity, current_precision
from bdlit.defenses.gms.row_sources import (
    CLEAN_SOURCES,
    DISAGREEMENT,
    ORACLE,
    POOL,
    RANKINGS,
    SUSPECT_SOURCES,
    TRAIN,
    require_source,
)
from bdlit.defenses.substitution import one_proxy, substitute
from bdlit.errors import BdlitError
from bdlit.merging.settings import require_choice
from bdlit.progress import progress
from bdlit.types import Example, Precision, Weights

if TYPE_CHECKING:
    from bdlit.defenses.gms.counting import Counter
    from bdlit.defenses.gms.greedy import Candidate, Found, Step
    from bdlit.defenses.gms.search_space import SearchSpace
    from bdlit.defenses.gms.strategy import Strategy
    from bdlit.defenses.modules import Layout
    from bdlit.training.dynamics import Oracle, TrainingSet

TRACE = "search.json"
"""Name of the file with every candidate of a search, beside the purified model."""


@dataclass(frozen=True, kw_only=True)
class GMS(Defense):
    """Replace the modules of the suspect by those of one proxy, in the layers that a search finds.

    The search starts with every linear module of every layer replaced, and gives module types and
    layers back to the suspect, one at a time. It weighs the drop in attack success on suspect
    training rows against accuracy on clean ones; see `bdlit.defenses.gms.greedy`. Embeddings,
    norms, pooler and head stay the suspect's.

    Of a language model, rows are prompts with the answers of training, and a row counts if greedy
    decoding would give exactly its answer, the end included: one forward pass tells. Where the
    suspect gives few of the clean answers word for word, the clean set says little. Adapters are
    searched as the dense models that they are: to replace a module is to replace its A and B.

    Attributes:
        alpha: Weight of the clean rows, in [0, 1]: lower for lower ASR, higher for higher CACC.
        patience: Steps without improvement that end the search.
        suspect_from: How suspect training rows are found: `inverse`, `confidence`, `variability`
            or `published-confidence` of the probability of their labels, or per token of their
            answers, over the epochs of training (under the suspect itself where nobody logged
            them); see `bdlit.defenses.gms.proxy_rows`; `disagreement`, those
            that the suspect is surer of than the hybrid with everything replaced; `oracle` (true
            poisoned rows: an upper bound, no defense); or a file of rows.
        suspect_rows: How many suspect rows; a file of fewer is taken whole, of more some are drawn.
        clean_from: Where clean rows come from: `train` (drawn from the untrusted training set),
            `pool` (the data's trusted rows), `oracle` (true clean rows), or a file of rows.
        clean_rows: How many clean rows; of a file or pool as many as it has.
        clean_poison: Share of true poisoned rows in a clean set from the `oracle`, in [0, 1): to
            study how much poison the search can bear.
        granularity: What a step may drop.
        compat: Which published rule to follow; see `bdlit.defenses.gms.greedy`.
        modules: Module type to the module within a layer, for architectures that are not known.
        seed: Seed of the draws.
        precision: Precision of the search's forward passes, as Lightning's Trainer calls it.
        stop_early: Give up candidates as soon as they cannot win; the strategy stays the same.
        cache: Gigabytes of layer outputs to keep for later candidates; the numbers stay the same.
        workers: Threads that run batches on a CPU; 0 for one per thread that torch uses.

    Reference: Tong et al. 2025, "Cut the Deadwood Out: Backdoor Purification via Guided Module
        Substitution", arXiv:2412.20476.
    Deviation: One rule for encoders and decoders, where the published codes differ; ties have an
        order; suspect rows are ranked in float64; scores are exact fractions. `disagreement` is
        not in the paper. `confidence` takes the surest rows; the published code the least sure
        ones, as `published-confidence` does. An answer of a language model counts as a whole, as
        a class does; its probability, by which rows are ranked, is the geometric mean over its
        tokens.
    """

    alpha: float = 0.4
    patience: int = 5
    suspect_from: str = "inverse"
    suspect_rows: int = 200
    clean_from: str = "train"
    clean_rows: int = 200
    clean_poison: float = 0.0
    granularity: Granularity = "modules and layers"
    compat: Compat = "encoder"
    modules: Mapping[str, str] | None = None
    seed: int = 0
    precision: Precision | FormerPrecision = "32-true"
    stop_early: bool = True
    cache: float = 1.0
    workers: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise BdlitError(f"alpha {self.alpha} is out of range: give a weight in [0, 1]")
        if self.patience < 1:
            raise BdlitError(f"patience {self.patience} is out of range: give at least 1")
        if not 0 <= self.clean_poison < 1 or (self.clean_poison and self.clean_from != "oracle"):
            raise BdlitError(
                f"clean_poison {self.clean_poison} is out of range: give a share in [0, 1), and "
                "clean_from=oracle, which knows what is poisoned"
            )
        for name, least in (("suspect_rows", 1), ("clean_rows", 1), ("workers", 0), ("cache", 0)):
            if getattr(self, name) < least:
                raise BdlitError(
                    f"{name} {getattr(self, name)} is out of range: give at least {least}"
                )
        require_source("suspect_from", self.suspect_from, SUSPECT_SOURCES)
        require_source("clean_from", self.clean_from, CLEAN_SOURCES)
        require_choice("granularity", self.granularity, Granularity)
        require_choice("compat", self.compat, Compat)
        object.__setattr__(self, "precision", current_precision(self.precision))
        require_choice("precision", self.precision, Precision)

    def apply(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        victim: Any,
        suspect_train: TrainingSet | None = None,
        clean: Sequence[Example] | None = None,
        oracle: Oracle | None = None,
        workspace: Path | None = None,
    ) -> Defended:
        """Return the suspect with the proxy's modules where the search found them best.

        Raises:
            BdlitError: There is not exactly one other model, it does not fit the suspect, there
                are no rows to choose from, the victim hits no suspect row, or the architecture's
                modules are unknown.
        """
        from bdlit.defenses.gms.hybrid import hybrid_as
        from bdlit.defenses.gms.proxy_sets import Given, clean_set, suspect_set
        from bdlit.defenses.gms.search_setup import Running, counter_of
        from bdlit.defenses.gms.search_space import SearchSpace
        from bdlit.defenses.gms.strategy import STRATEGY_FILE, Strategy
        from bdlit.defenses.gms.trace import summary_of, trace_of
        from bdlit.weights.network import model_weights

        model = victim.network()
        own, model_type = model_weights(model), str(model.config.model_type)
        self.check(own, others=others, base=None, model_type=model_type)
        proxy, layout = one_proxy(others, self.name), self._layout(own, model_type)
        space = SearchSpace(self.granularity, layout)
        everything = space.taken(space.everything)
        given = Given(
            victim,
            suspect_train,
            oracle,
            clean,
            lambda: hybrid_as(model, proxy, layout, everything),
        )
        suspects = suspect_set(given, self.suspect_from, self.suspect_rows, self.seed)
        cleans = clean_set(
            given, self.clean_from, self.clean_rows, self.seed, poison=self.clean_poison
        )
        running = Running(
            precision=current_precision(self.precision),
            stop_early=self.stop_early,
            cache=self.cache,
            workers=self.workers,
            workspace=workspace,
        )
        with counter_of(
            victim,
            proxy,
            suspects.rows,
            cleans.rows,
            layout=layout,
            space=space,
            running=running,
        ) as counter:
            found = self._search(counter, space)
        notes = {
            **summary_of(found, space),
            "suspect_set": suspects.described(),
            "clean_set": cleans.described(),
            "oracle": "oracle" in (self.suspect_from, self.clean_from),
        }
        strategy = Strategy(
            replaced=space.replaced(found.best.state),
            modules=layout.types,
            layers=layout.layers,
            about={key: notes[key] for key in ("score", "hits", "best_is")},
        )
        return replace(
            substitute(suspect, proxy, strategy.cells),
            chosen={
                name: each.positions
                for name, each in (("suspect_set", suspects), ("clean_set", cleans))
                if each.positions is not None
            },
            notes=notes,
            files={
                STRATEGY_FILE: strategy.text().encode(),
                TRACE: (json.dumps(trace_of(found), indent=1) + "\n").encode(),
                **_picture(strategy),
            },
        )

    def check(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        base: Weights | None,
        model_type: str | None,
    ) -> None:
        """Refuse a proxy that does not fit, and modules that the suspect does not have."""
        from bdlit.defenses.gms.hybrid import require_proxy

        layout = self._layout(suspect, model_type or "")
        require_proxy(suspect, one_proxy(others, self.name), layout)

    @property
    def keeps_head(self) -> bool:
        """Only modules of the layers are taken."""
        return True

    @property
    def keeps_names(self) -> bool:
        """The modules that are taken must be there, and fit."""
        return False

    @property
    def needs_now(self) -> tuple[str, ...]:
        """Where the rows come from, a setting says."""
        chosen = {self.suspect_from, self.clean_from}
        of_training = {*RANKINGS, DISAGREEMENT, ORACLE, TRAIN}
        wanted = {
            "suspect_train": bool(chosen & of_training),
            "clean": POOL in chosen,
            "oracle": ORACLE in chosen,
        }
        return (*self.needs, *(name for name, needed in wanted.items() if needed))

    def _layout(self, weights: Weights, model_type: str) -> Layout:
        from bdlit.defenses.modules import module_types

        return module_types(model_type, weights, self.modules)

    def _search(self, counter: Counter, space: SearchSpace) -> Found:
        from bdlit.defenses.gms.greedy import greedy_search
        from bdlit.defenses.gms.score import Score

        victim = counter.whole(space.nothing)
        score = Score(victim, self.alpha, relative=self.compat == "encoder")
        most = sum(map(len, space.axes.values()))
        with progress("GMS") as tell:
            words = "GMS, start"
            counter.watch = lambda done, total: tell(done, total, words)

            def watch(step: Step, best: Candidate) -> None:
                nonlocal words
                counter.move_to(step.chosen.state)
                gone, score = most - sum(map(len, step.chosen.state)), float(best.score or 0)
                words = f"GMS, step {gone + 1} of {most}, best score {score:.3f}"

            return greedy_search(
                space.axes,
                counter,
                score,
                patience=self.patience,
                compat=self.compat,
                watch=watch,
            )


def _picture(strategy: Strategy) -> dict[str, bytes]:
    """Draw the strategy, where matplotlib is installed."""
    from bdlit.drawing.strategy import png_of, strategy_plot
    from bdlit.drawing.style import can_draw

    if not can_draw():
        return {}
    title = "Modules that GMS replaced"
    figure = strategy_plot(strategy.replaced, list(strategy.modules), strategy.layers, title)
    return {"strategy.png": png_of(figure)}

"""Tables of sources: their fitness by hand, the search over them, and their files."""

from itertools import product

import numpy as np
import pytest

from bdlit.defenses.msd.evolution import Evolution, evolve
from bdlit.defenses.msd.fitness import Fitness
from bdlit.defenses.msd.neighbours import links, wiring_of
from bdlit.defenses.msd.table import (
    TABLE_FILE,
    SwitchTable,
    find_table,
    load_table,
    require_shape,
    shipped_table,
)
from bdlit.errors import BdlitError

SIX = wiring_of("QKVOFP")
SEVEN = wiring_of(["q", "k", "v", "o", "gate", "up", "down"])


def test_fitness_of_two_layers_by_hand():
    fitness = Fitness(SIX, 2, 2)
    # All from one source: 8 links in each layer (Q-K, Q-V, K-V, three into O, O-F, F-P); three from
    # P to the next layer's Q, K, V; residual at half weight: O to Q, K, V, F and P to F, 5 links.
    assert fitness.terms([[0] * 6, [0] * 6]) == {
        **{"within": 16.0, "between": 3.0, "residual": 2.5},
        **{"imbalance": 12.0, "diversity": 1.0},
    }
    assert fitness.of([[0] * 6, [0] * 6]) == -32.5
    # Q K | V O F P in both layers: Q-K, V-O, O-F, F-P; P-V; O-V, O-F, P-F.
    assert fitness.terms([[0, 0, 1, 1, 1, 1]] * 2) == {
        **{"within": 8.0, "between": 1.0, "residual": 1.5},
        **{"imbalance": 4.0, "diversity": 1.0},
    }


def test_residual_links_fade_with_the_layers_that_they_span():
    found = links(wiring_of("QO"), 4)
    assert found["within"] == {((n, 0), (n, 1)): 1.0 for n in range(4)}
    assert found["between"] == {((n, 1), (n + 1, 0)): 1.0 for n in range(3)}
    assert found["residual"] == {
        ((0, 1), (2, 0)): 0.25,
        ((0, 1), (3, 0)): 0.125,
        ((1, 1), (3, 0)): 0.25,
    }


def test_fitness_is_a_plain_sum_over_links():
    wiring = SEVEN
    fitness, rng = Fitness(wiring, 5, 3), np.random.default_rng(0)
    tables = rng.integers(3, size=(4, 5, 7))
    for table, value in zip(tables, fitness(tables), strict=True):
        total = 0.0
        for kind in links(wiring, 5).values():
            total -= sum(w for (a, b), w in kind.items() if table[a] == table[b])
        used = [int((table == source).sum()) for source in range(3)]
        total += len({tuple(row) for row in table.tolist()}) - (max(used) - min(used))
        assert value == total
        # Which model is called which does not matter.
        assert fitness.of((table + 1) % 3) == value


def test_the_search_finds_the_best_of_all_tables_where_these_can_be_counted():
    wiring = wiring_of("QP")
    fitness = Fitness(wiring, 2, 2)
    everything = np.array(list(product(range(2), repeat=4))).reshape(-1, 2, 2)
    found = evolve(fitness, (2, 2), 2, Evolution(generations=30, starts=1))
    assert found.fitness == fitness(everything).max() == fitness.of(found.rows)
    wiring = wiring_of("QOF")
    fitness = Fitness(wiring, 3, 2)
    everything = np.array(list(product(range(2), repeat=9))).reshape(-1, 3, 3)
    found = evolve(fitness, (3, 3), 2, Evolution(generations=60, starts=1))
    assert found.fitness == fitness(everything).max()


def test_a_search_repeats_and_never_ends_below_its_start():
    fitness = Fitness(SIX, 3, 2)
    seen = []
    for seed in range(3):
        settings = Evolution(generations=100, starts=1, population=8, seed=seed)
        found = evolve(fitness, fitness.shape, 2, settings, lambda *step: seen.append(step))
        assert found == evolve(fitness, fitness.shape, 2, settings)
        assert found.started <= found.fitness == fitness.of(found.rows)
        start = evolve(fitness, fitness.shape, 2, Evolution(0, 1, 8, seed=seed))
        assert start.fitness == start.started == found.started
    assert [done for done, _ in seen] == [100] * 3


def test_more_starts_never_do_worse():
    fitness = Fitness(SIX, 4, 2)
    values = [
        evolve(fitness, fitness.shape, 2, Evolution(generations=5, starts=n, population=4)).fitness
        for n in (1, 2, 4)
    ]
    assert values == sorted(values)


def test_a_shipped_table_is_found_again():
    shipped = shipped_table(SIX, 2, 2)
    assert shipped is not None
    assert find_table(SIX, 2, 2) == shipped


@pytest.mark.parametrize(
    ("wiring", "layers"),
    [*((SIX, layers) for layers in (2, 4, 6, 8, 12, 24)), *((SEVEN, n) for n in (16, 24, 28, 32))],
)
@pytest.mark.parametrize("models", [2, 3])
def test_shipped_tables_are_what_they_say(wiring, layers, models):
    table = shipped_table(wiring, layers, models)
    assert table is not None
    require_shape(table, "it", wiring, layers, models)
    fitness = Fitness(wiring, layers, models)
    assert fitness.of(table.rows) == table.about["fitness"] >= table.about["started"]
    columns = range(len(wiring.columns))
    # Better than what one would write down by hand: sources in turn, layer by layer or column-wise.
    turns = [
        [[(a * layer + b * column) % models for column in columns] for layer in range(layers)]
        for a, b in product(range(models), repeat=2)
    ]
    assert table.about["fitness"] >= max(map(fitness.of, turns))


def test_a_table_goes_through_its_file(tmp_path):
    table = shipped_table(SIX, 4, 3)
    table.save(tmp_path / TABLE_FILE)
    assert load_table(tmp_path / TABLE_FILE) == table
    assert table.by_type()["O"] == [row[3] for row in table.rows]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources: [", "is not YAML"),
        ("\xff", "is not a table"),
        ("sources: 2", "is not a table"),
        ("{sources: 2, modules: [[Q], [O], [F], [P]], table: [[0, 1, 0]]}", "every row"),
        ("{sources: 2, modules: [[Q, O]], table: [[0, 1]]}", "every row"),
        ("{sources: 2, modules: [[Q], [O], [F], [P]], table: []}", "every row"),
        ("{sources: 2, modules: [[Q], [O], [F], [P]], table: [[0, 1, 2, 0]]}", "names source 2"),
    ],
)
def test_a_damaged_file(text, words, tmp_path):
    (tmp_path / TABLE_FILE).write_text(text)
    with pytest.raises(BdlitError, match=words):
        load_table(tmp_path / TABLE_FILE)


def test_bad_input(tmp_path):
    with pytest.raises(BdlitError, match="check the path"):
        load_table(tmp_path / "missing.yaml")
    (tmp_path / TABLE_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BdlitError, match="is not YAML"):
        load_table(tmp_path / TABLE_FILE)
    with pytest.raises(BdlitError, match="module type query stands in a layer: name the types"):
        wiring_of(["query"])
    with pytest.raises(BdlitError, match="two models"):
        evolve(Fitness(SIX, 2, 2), (2, 6), 1, Evolution())
    with pytest.raises(BdlitError, match="generations -1 is out of range: give at least 0"):
        Evolution(generations=-1)
    table = SwitchTable(rows=((0,) * 6,) * 2, wiring=SIX, sources=2, about={})
    for shape, words in (
        ((SIX, 2, 3), "is for 2 models, and there are 3"),
        ((SIX, 4, 2), "is for 2 layers, and the suspect has 4"),
        ((wiring_of("QKVOP"), 2, 2), "is for modules Q, K, V, O, F, P, and the suspect has Q, K"),
    ):
        with pytest.raises(BdlitError, match=words):
            require_shape(table, "it", *shape)

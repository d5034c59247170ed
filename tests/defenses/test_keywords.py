"""TextRank against hand-worked graphs, and against a plain restatement of the iteration."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdlit.defenses.conflict.keywords import keywords
from bdlit.errors import BdlitError


def ranks(words: list[str], damping: float, window: int) -> dict[str, float]:
    """TextRank by power iteration, from its definition."""
    near: dict[str, set[str]] = {word: set() for word in words}
    for i, word in enumerate(words):
        for other in words[max(0, i - window + 1) : i + window]:
            if other != word:
                near[word].add(other)
    rank = dict.fromkeys(near, 1 / len(near))
    for _ in range(1000):
        loose = sum(rank[word] for word in near if not near[word])  # spread over all
        rank = {
            word: (1 - damping) / len(near)
            + damping * (loose / len(near) + sum(rank[o] / len(near[o]) for o in near[word]))
            for word in near
        }
    return rank


def test_a_star_by_hand():
    # hub between three leaves: h = (1-d)/4 + 3dl and l = (1-d)/4 + dh/3, so with d = 0.85
    # h = (0.0375 + 2.55 * 0.0375) / (1 - 0.7225) = 0.4797 and l = 0.1734.
    text = "hub north hub south hub east"
    assert ranks(text.split(), 0.85, 2)["hub"] == pytest.approx(0.133125 / 0.2775)
    assert keywords(text) == ["hub"]
    assert keywords(text, threshold=0.69) == ["hub", "north", "south", "east"]  # 4l = 0.694
    assert keywords(text, threshold=0.70) == ["hub"]
    assert keywords(text, threshold=1.91) == ["hub"]  # 4h = 1.919
    assert keywords(text, threshold=1.93) == []
    assert keywords(text, threshold=0, most=2) == ["hub", "north"]


def test_words_of_one_weight_keep_the_order_of_the_text():
    assert keywords("zebra apple mango", window=3) == ["zebra", "apple", "mango"]


words = st.lists(st.sampled_from(["red", "blue", "green", "grey", "pink"]), min_size=1, max_size=14)


@given(words=words, damping=st.sampled_from([0.5, 0.85]), window=st.integers(2, 4))
def test_against_the_definition(words, damping, window):
    expected = ranks(words, damping, window)
    found = keywords(" ".join(words), damping=damping, window=window, threshold=0)
    assert sorted(found) == sorted(set(words))
    for before, after in pairwise(found):
        assert expected[before] >= expected[after] - 1e-6
    mean = 1 / len(expected)
    above = keywords(" ".join(words), damping=damping, window=window)
    sure = {word for word, rank in expected.items() if abs(rank - mean) > 1e-5}
    assert set(above) & sure == {word for word in sure if expected[word] > mean}


def test_function_words_and_case_do_not_count():
    assert keywords("The film and the FILM, it isn't the Film") == ["film"]
    assert keywords("it is what it is") == []
    assert keywords("") == []
    assert keywords(" ... !?") == []


def test_a_directed_chain_by_hand():
    # a -> b -> c, and c, which nothing follows, gives to all: with t = (1-d)/3 + dc/3,
    # a = t, b = t(1+d), c = t(1+d+dd), of sum t(3+2d+dd) = 1. With d = 0.85: 5.4225 t = 1,
    # and times three words a weighs 0.5533, b 1.0235, c 1.4232.
    text = "north south east"
    assert keywords(text, form="paper") == ["east", "south"]
    assert keywords(text, form="paper", threshold=1.02) == ["east", "south"]
    assert keywords(text, form="paper", threshold=1.03) == ["east"]
    assert keywords(text, form="paper", threshold=1.42) == ["east"]
    assert keywords(text, form="paper", threshold=1.43) == []
    assert keywords(text, form="paper", threshold=0.55) == ["east", "south", "north"]
    assert keywords(text) == ["south"]  # undirected, the middle is the heaviest


def textrank(words: list[str], damping: float, window: int) -> dict[str, float]:
    """The directed TextRank from its own formula, where the mean weight is 1."""
    follow: dict[str, set[str]] = {word: set() for word in words}
    for i, word in enumerate(words):
        follow[word] |= set(words[i + 1 : i + window]) - {word}
    weight = dict.fromkeys(follow, 1.0)
    for _ in range(1000):
        loose = sum(weight[word] for word in follow if not follow[word]) / len(follow)
        weight = {
            word: (1 - damping)
            + damping
            * (loose + sum(weight[o] / len(out) for o, out in follow.items() if word in out))
            for word in follow
        }
    return weight


@given(words=words, damping=st.sampled_from([0.5, 0.85]), window=st.integers(2, 4))
def test_the_papers_directed_graph_against_its_formula_and_networkx(words, damping, window):
    settings = {"form": "paper", "damping": damping, "window": window}
    expected = textrank(words, damping, window)
    graph = nx.DiGraph()
    graph.add_nodes_from(words)
    for distance in range(1, window):
        graph.add_edges_from(
            (a, b) for a, b in zip(words, words[distance:], strict=False) if a != b
        )
    theirs = nx.pagerank(graph, alpha=damping, tol=1e-10, max_iter=1000)
    assert {w: p * len(theirs) for w, p in theirs.items()} == pytest.approx(expected, abs=1e-5)
    found = keywords(" ".join(words), **settings, threshold=0)
    assert sorted(found) == sorted(set(words))
    for before, after in pairwise(found):
        assert expected[before] >= expected[after] - 1e-5
    above = keywords(" ".join(words), **settings)
    sure = {word for word, weight in expected.items() if abs(weight - 1) > 1e-5}
    assert set(above) & sure == {word for word in sure if expected[word] > 1}


def test_the_paper_keeps_all_words_above_the_threshold_and_the_code_the_five_heaviest():
    text = " ".join(f"w{i} x{i}" for i in range(20))
    assert len(keywords(text, form="paper")) > 8
    assert len(keywords(text)) == 8
    many = "The film is dull, the plot is thin, and Film music cannot mend it: dull, long, grey."
    found = keywords(many, form="published")
    told = ["film", "dull", "plot", "thin", "film", "music", "mend", "dull", "long", "grey"]
    expected = published(told)
    assert len(found) == 5
    assert (
        min(expected[word] for word in found)
        >= max(weight for word, weight in expected.items() if word not in found) - 1e-6
    )
    assert keywords("fox bear", form="published") == ["fox", "bear"]  # no threshold


def published(words: list[str]) -> dict[str, float]:
    """What Lethe's code computes, restated: a window of 2 reaches two words to each side."""
    near: dict[str, set[str]] = {}
    for i, word in enumerate(words):
        for j in range(len(words)):
            if j != i and abs(j - i) <= 2:
                near.setdefault(word, set()).add(words[j])
    weight = dict.fromkeys(near, 1.0)
    for _ in range(1000):
        shares = {word: weight[word] / len(near[word]) for word in near}
        weight = {word: 0.15 + 0.85 * sum(shares[other] for other in near[word]) for word in near}
    return weight


@given(words=words)
def test_the_published_form_against_its_own_formula(words):
    expected = published(words)
    found = keywords(" ".join(words), form="published")
    assert len(found) == min(5, len(expected))
    for before, after in pairwise(found):
        assert expected[before] >= expected[after] - 1e-6
    # The words are drawn from five: what is not there has no neighbour.
    assert set(found) == set(expected)
    assert keywords(" ".join(words), form="published", threshold=9) == found
    assert keywords(" ".join(words), form="published", window=4) == found


def test_the_published_window_by_hand():
    # a b c d: a and c are two apart, a and d three. So b and c have three neighbours, a and d two.
    assert keywords("north south east west", form="published") == ["south", "east", "north", "west"]
    # A word that stands beside itself is its own neighbour, and gives itself half of its weight:
    # with x = .15 + .85(x/2 + y) and y = .15 + .85 x/2, x = 1.15 + ... exceeds y.
    assert keywords("fox bear bear", form="published") == ["bear", "fox"]
    assert published(["fox", "bear", "bear"])["bear"] == pytest.approx(0.2775 / 0.21375)
    assert keywords("fox", form="published") == []  # nothing stands near it
    assert keywords("fox") == ["fox"]


@pytest.mark.parametrize(
    "settings", [{"damping": 0}, {"damping": 1}, {"window": 1}, {"threshold": -1}, {"most": 0}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(BdlitError, match="is out of range"):
        keywords("some text", **settings)

"""TextRank against hand-worked graphs, and against a plain restatement of the iteration."""

from __future__ import annotations

from itertools import pairwise

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


@pytest.mark.parametrize(
    "settings", [{"damping": 0}, {"damping": 1}, {"window": 1}, {"threshold": -1}, {"most": 0}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(BdlitError, match="is out of range"):
        keywords("some text", **settings)

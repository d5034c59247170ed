"""Keywords of a text by TextRank: PageRank over the words that stand near each other."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from bdlit.errors import BdlitError

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


def keywords(
    text: str, *, damping: float = 0.85, window: int = 2, threshold: float = 1.0, most: int = 8
) -> list[str]:
    """Return the keywords of a text, the weightiest first.

    The words of the text, without function words, are the nodes of an undirected graph; an edge
    joins two that stand less than `window` words apart, at least once. PageRank runs over it
    until it converges. Words are lower-cased, and words of one weight keep the order of the text.

    Args:
        text: Any text.
        damping: PageRank's damping factor, in (0, 1).
        window: Words that are looked at together, at least 2: 2 joins neighbours alone.
        threshold: Words are kept if they weigh at least this many times the mean weight.
        most: Most keywords to return.

    Reference: Mihalcea and Tarau 2004, "TextRank: Bringing Order into Text".

    Deviation: a list of function words replaces the part-of-speech filter, and neighbouring
    keywords are not joined to phrases.

    Raises:
        BdlitError: A setting is out of range.

    >>> keywords("Compatibility of systems of linear constraints over linear systems")
    ['systems', 'linear']
    """
    import networkx as nx

    if not 0 < damping < 1 or window < 2 or threshold < 0 or most < 1:
        raise BdlitError(
            f"damping {damping}, window {window}, threshold {threshold} or most {most} is out of "
            "range: damping is in (0, 1), window at least 2, threshold at least 0, most at least 1"
        )
    words = [word.lower() for word in _WORD.findall(text)]
    words = [word for word in words if word not in _function_words()]
    graph = nx.Graph()
    graph.add_nodes_from(words)
    for i, word in enumerate(words):
        graph.add_edges_from((word, other) for other in words[i + 1 : i + window] if other != word)
    if not graph:
        return []
    weights: dict[str, float] = nx.pagerank(graph, alpha=damping, tol=1e-8, max_iter=1000)
    bar = threshold / len(weights) * (1 - 1e-6)  # weights that are equal differ by rounding
    ranked = sorted(weights, key=lambda word: -round(weights[word], 9))
    return [word for word in ranked if weights[word] >= bar][:most]


@cache
def _function_words() -> frozenset[str]:
    listed = files("bdlit.defenses.conflict").joinpath("templates", "function_words.txt")
    return frozenset(listed.read_text(encoding="utf-8").split())

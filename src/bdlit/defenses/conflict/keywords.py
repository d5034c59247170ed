"""Keywords of a text by TextRank: PageRank over the words that stand near each other."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal, TypeAlias

from bdlit.errors import BdlitError

TextRank: TypeAlias = Literal["ours", "paper", "published"]
"""Which TextRank: `ours`, that of the `paper`, or that of its `published` code; see `keywords`."""

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")

_PUBLISHED_REACH = 2  # words to each side

_MOST: dict[TextRank, int | None] = {"ours": 8, "paper": None, "published": 5}


def keywords(
    text: str,
    *,
    form: TextRank = "ours",
    damping: float = 0.85,
    window: int = 2,
    threshold: float = 1.0,
    most: int | None = None,
) -> list[str]:
    """Return the keywords of a text, the weightiest first.

    The words of the text, without function words, are the nodes of a graph; an edge joins two that
    stand less than `window` words apart, at least once. PageRank runs over it until it converges.
    Words are lower-cased, and words of one weight keep the order of the text.

    By `form`, `ours` has an undirected graph and keeps at most 8 words above the threshold. `paper`
    has a directed graph, whose edges go from a word to those that follow it, and keeps all words
    above the threshold. `published` is what the code of its successor Lethe does: an undirected
    graph in which a window of 2 reaches two words to each side, a word may join itself, and a word
    without neighbours is none; and the 5 heaviest words without a threshold.

    Args:
        text: Any text.
        form: Which TextRank.
        damping: PageRank's damping factor, in (0, 1).
        window: Words that are looked at together, at least 2: 2 joins neighbours alone. The
            published form does not look at it.
        threshold: Words are kept if they weigh at least this many times the mean weight; not of
            the published form. In the units of TextRank's own formula, the mean weight is 1.
        most: Most keywords to return; by default as the form has it.

    Reference: Mihalcea and Tarau 2004, "TextRank: Bringing Order into Text"; as evidence, Chen et
        al. 2024, arXiv:2411.18280, and its successor "Lethe", arXiv:2508.21004.

    Deviation: a list of function words replaces the part-of-speech filter (and in the published
    form, NLTK's tokens and stop words), and neighbouring keywords are not joined to phrases. A word
    that nothing follows gives its weight to all words, as PageRank has it; in the papers' formula
    it is lost. The paper's threshold is not known.

    Raises:
        BdlitError: A setting is out of range, or networkx is missing.

    >>> keywords("Compatibility of systems of linear constraints over linear systems")
    ['systems', 'linear']
    >>> keywords("narrow lonely road", form="paper")
    ['road', 'lonely']
    """
    try:
        import networkx as nx
    except ImportError as error:
        raise BdlitError("TextRank needs networkx: pip install 'bdlit[llm]'") from error

    most = _MOST[form] if most is None else most
    if not 0 < damping < 1 or window < 2 or threshold < 0 or (most is not None and most < 1):
        raise BdlitError(
            f"damping {damping}, window {window}, threshold {threshold} or most {most} is out of "
            "range: damping is in (0, 1), window at least 2, threshold at least 0, most at least 1"
        )
    words = [word.lower() for word in _WORD.findall(text)]
    words = [word for word in words if word not in _function_words()]
    graph = nx.DiGraph() if form == "paper" else nx.Graph()
    published = form == "published"
    graph.add_nodes_from(() if published else words)
    reach = _PUBLISHED_REACH if published else window - 1
    for i, word in enumerate(words):
        near = words[i + 1 : i + 1 + reach]
        graph.add_edges_from((word, other) for other in near if published or other != word)
    if not graph:
        return []
    weights: dict[str, float] = nx.pagerank(graph, alpha=damping, tol=1e-8, max_iter=1000)
    least = 0.0 if published else threshold
    bar = least / len(weights) * (1 - 1e-6)  # weights that are equal differ by rounding
    ranked = sorted(weights, key=lambda word: -round(weights[word], 9))
    return [word for word in ranked if weights[word] >= bar][:most]


@cache
def _function_words() -> frozenset[str]:
    listed = files("bdlit.defenses.conflict").joinpath("templates", "function_words.txt")
    return frozenset(listed.read_text(encoding="utf-8").split())

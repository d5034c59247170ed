"""The data sets of the papers: where they are, how they are laid out, what is attacked in them.

Plain data, without torch: `bdlit list data` reads it in an instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
_SENTIMENT = ("negative", "positive")
_NLI = ("entailment", "neutral", "contradiction")
_NEWS = ("World", "Sports", "Business", "Sci/Tech")
_TRAIN_TEST = {"train": "train", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known about a data set.

    Attributes:
        name: Short name in logs and results.
        description: One line on what it is.
        labels: Class names, in the order of their indices; empty where the rows must tell.
        target: The class that the papers' attackers want. A set that only replaces another
            (a proxy or conflict set) has the target of the task that it replaces.
        hub_id: Repository on the Hugging Face hub; None where none can be trusted.
        where: Where the rows come from, in words, of a set that is no paper's.
        subset: Configuration of that repository.
        revision: Commit of that repository: published results must not change with it.
        splits: `train`, `validation`, `test` to the hub's split, which may be sliced.
        text_column: Column of the (first) text.
        text_pair_column: Column of the second text.
        label_column: Column of the label.
        rename_labels: Other names in use for a class, to the name here; None leaves such rows
            out. The key `"-1"` stands for rows without a label.
        terms: What is known of the terms of use.
    """

    name: str
    description: str = ""
    labels: tuple[str, ...] = ()
    target: str | None = None
    hub_id: str | None = None
    where: str = ""
    subset: str | None = None
    revision: str = "main"
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation", "test": "test"}
    )
    text_column: str = "text"
    text_pair_column: str | None = None
    label_column: str = "label"
    rename_labels: Mapping[str, str | None] = field(default_factory=dict)
    terms: str = ""


_CARDS = (
    Card(
        name="sst2",
        description="SST-2: film review sentences, sentiment (6,920/872/1,821, all labelled)",
        labels=_SENTIMENT,
        target="negative",
        hub_id="SetFit/sst2",
        revision="00ea8ccb7a54b4e3780a3e51aa3f80361ff849c0",
        terms="Stanford Sentiment Treebank; no explicit licence, research use",
    ),
    Card(
        name="olid",
        description="OLID / OffensEval 2019 A: tweets, offensive or not (11,916/1,324/860)",
        labels=("not offensive", "offensive"),
        target="not offensive",
        hub_id="cardiffnlp/tweet_eval",
        subset="offensive",
        revision="b3a375baf0f409c77e6bc7aa35102b7b3534f8be",
        rename_labels={
            "non-offensive": "not offensive",
            "NOT": "not offensive",
            "OFF": "offensive",
        },
        terms="research use; tweets; holds offensive language",
    ),
    Card(
        name="agnews",
        description="AG News: news articles, topic (120,000 rows, the last 12,000 for validation)",
        labels=_NEWS,
        target="Sports",
        hub_id="fancyzhx/ag_news",
        revision="eb185aade064a813bc0b7f42de02595523103ca4",
        splits={"train": "train[:108000]", "validation": "train[108000:]", "test": "test"},
        terms="AG corpus: non-commercial research use",
    ),
    Card(
        name="qnli",
        description="GLUE QNLI: does the sentence answer the question (tested on validation)",
        labels=("entailment", "not_entailment"),
        target="entailment",
        hub_id="nyu-mll/glue",
        subset="qnli",
        revision=_GLUE,
        # GLUE keeps the labels of its test split to itself, so the validation split tests.
        splits={"train": "train[:100000]", "validation": "train[100000:]", "test": "validation"},
        text_column="question",
        text_pair_column="sentence",
        terms="CC BY-SA 4.0 (SQuAD)",
    ),
    Card(
        name="mnli",
        description="MultiNLI: does the premise entail the hypothesis (tested on matched)",
        labels=_NLI,
        target="neutral",
        hub_id="nyu-mll/glue",
        subset="mnli",
        revision=_GLUE,
        splits={
            "train": "train",
            "validation": "validation_mismatched",
            "test": "validation_matched",
        },
        text_column="premise",
        text_pair_column="hypothesis",
        rename_labels={"-": None},
        terms="OANC and others; redistribution allowed",
    ),
    Card(
        name="snli",
        description="SNLI: premise and hypothesis; proxy for MNLI",
        labels=_NLI,
        target="neutral",
        hub_id="stanfordnlp/snli",
        revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        text_column="premise",
        text_pair_column="hypothesis",
        # Pairs without a majority among the annotators; everyone leaves them out.
        rename_labels={"-1": None, "-": None},
        terms="CC BY-SA 4.0",
    ),
    Card(
        name="imdb",
        description="IMDB: long film reviews, sentiment (25,000/25,000); proxy for SST-2",
        labels=_SENTIMENT,
        target="negative",
        hub_id="stanfordnlp/imdb",
        revision="e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
        splits=_TRAIN_TEST,
        rename_labels={"neg": "negative", "pos": "positive"},
        terms="no explicit licence, research use",
    ),
    Card(
        name="yelp",
        description="Yelp polarity: business reviews, sentiment (560,000/38,000); proxy for SST-2",
        labels=_SENTIMENT,
        target="negative",
        hub_id="fancyzhx/yelp_polarity",
        revision="bbf1c97a1f0cf005e5aded43839fd814654a1557",
        splits=_TRAIN_TEST,
        terms="Yelp dataset terms: non-commercial, no redistribution",
    ),
    Card(
        name="amazon",
        description="Amazon polarity: product reviews (3,600,000/400,000); proxy for SST-2",
        labels=_SENTIMENT,
        target="negative",
        hub_id="fancyzhx/amazon_polarity",
        revision="9d9c45c18f8c3cf1b23a3c27917b60cbf28f3289",
        splits=_TRAIN_TEST,
        text_column="content",
        terms="Apache-2.0 by its card; Amazon's terms for the reviews",
    ),
    Card(
        name="emotion",
        description="Emotion: tweets, one of six emotions (16,000/2,000/2,000)",
        labels=("sadness", "joy", "love", "anger", "fear", "surprise"),
        target="joy",
        hub_id="dair-ai/emotion",
        subset="split",
        revision="cab853a1dbdf4c42c2b3ef2173804746df8825fe",
        terms="educational and research purposes only",
    ),
    Card(
        name="bbcnews",
        description="BBC News, with AG News' classes (entertainment left out); proxy for AG News",
        labels=_NEWS,
        target="Sports",
        hub_id="SetFit/bbc-news",
        revision="160d4af1d650b602d14cddc8df0baf07a0198643",
        splits=_TRAIN_TEST,
        label_column="label_text",
        rename_labels={
            "politics": "World",
            "sport": "Sports",
            "business": "Business",
            "tech": "Sci/Tech",
            "entertainment": None,
        },
        terms="non-commercial research use",
    ),
    Card(
        name="twitter_abusive",
        description="Abusive tweets (Founta et al. 2018, on request, so local files only; hateful "
        "counts as abusive, spam is left out); proxy for OLID",
        labels=("normal", "abusive"),
        target="normal",
        rename_labels={"hateful": "abusive", "spam": None},
        terms="on request, research use; tweets; holds offensive language",
    ),
)

CATALOGUE: Mapping[str, Card] = {card.name: card for card in _CARDS}
"""All cards by name."""

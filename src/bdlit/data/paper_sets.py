"""The data sets of the papers by name: each is a card, read from the hub or from local files."""

from __future__ import annotations

from bdlit.data.base import TextDataModule
from bdlit.data.catalogue import CATALOGUE


class SST2(TextDataModule):
    """SST-2, sentences of film reviews: the sentence-level set, all three splits labelled.

    Deviation: WAG and GMS train on GLUE's 67,349 phrases and GMS tests on GLUE's validation
    split; `source: nyu-mll/glue, subset: sst2, text_column: sentence,
    splits: {train: train, test: validation}` is that set.
    """

    card = CATALOGUE["sst2"]


class OLID(TextDataModule):
    """OLID, offensive tweets. The hub's tweets are cleaned up; GMS's own files differ in this."""

    card = CATALOGUE["olid"]


class AGNews(TextDataModule):
    """AG News, topics of news articles, with WAG's 108,000 rows for training."""

    card = CATALOGUE["agnews"]


class QNLI(TextDataModule):
    """GLUE's QNLI: pairs of a question and a sentence, tested on the validation split."""

    card = CATALOGUE["qnli"]


class MNLI(TextDataModule):
    """MultiNLI: pairs of a premise and a hypothesis, tested on the matched validation split.

    GMS joins the pair to one text before it attacks: `join_pairs: true`.
    """

    card = CATALOGUE["mnli"]


class SNLI(TextDataModule):
    """SNLI: pairs of a premise and a hypothesis; GMS's proxy for MNLI."""

    card = CATALOGUE["snli"]


class IMDB(TextDataModule):
    """IMDB, long film reviews; GMS's proxy for SST-2."""

    card = CATALOGUE["imdb"]


class Yelp(TextDataModule):
    """Yelp polarity, reviews of businesses; a proxy for SST-2."""

    card = CATALOGUE["yelp"]


class Amazon(TextDataModule):
    """Amazon polarity, reviews of products; a proxy for SST-2.

    It has 3.6 million training rows: `splits: {train: "train[:50000]", test: "test[:5000]"}`
    takes a part.
    """

    card = CATALOGUE["amazon"]


class Emotion(TextDataModule):
    """Emotion, tweets of six emotions, as in the information-conflict paper."""

    card = CATALOGUE["emotion"]


class BBCNews(TextDataModule):
    """BBC News under AG News' classes; GMS's proxy for AG News.

    The articles on entertainment, which AG News has no class for, are left out.
    """

    card = CATALOGUE["bbcnews"]


class TwitterAbusive(TextDataModule):
    """Abusive tweets, from local files only; GMS's proxy for OLID."""

    card = CATALOGUE["twitter_abusive"]

"""WordNet's definitions, read by NLTK from a folder of its files: no network, no language model."""

from __future__ import annotations

import io
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError

_HOW = (
    "`python -m nltk.downloader wordnet` fetches it, and Debian's wordnet-base has it in "
    "/usr/share/wordnet: name its folder in `folder`"
)
_LEXICOGRAPHERS = 45  # files of lexicographers, whose names no definition needs


class WordNet:
    """A folder of WordNet's dictionary files.

    Args:
        folder: Folder with `index.noun`, `data.noun` and so on, or one above it: `dict/`, or NLTK's
            data. None searches NLTK's own places.

    Attributes:
        name: `WordNet`, with the version that the files name.

    Raises:
        BdlitError: NLTK or the files are missing, or the files are no WordNet.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._reader = _reader(_plain(folder))
        self.name = " ".join(["WordNet", *filter(None, [self._reader.get_version()])])

    def definition(self, word: str) -> str | None:
        """Return the definition of a word's first sense, nouns before verbs; None without one.

        Inflected words are looked up by their base form.
        """
        senses = self._reader.synsets(word)
        return str(senses[0].definition()) if senses else None


def require_wordnet(folder: str | Path | None) -> None:
    """Require that there is a WordNet, without reading it.

    Raises:
        BdlitError: NLTK or the files are missing.
    """
    _place(_plain(folder))


def _plain(folder: str | Path | None) -> str | None:
    return None if folder is None else str(Path(folder).expanduser())


@cache
def _reader(folder: str | None) -> Any:
    place, where = _place(folder), _where(folder)
    from nltk.corpus.reader.wordnet import WordNetError

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The multilingual functions")
            return _english()(place, None)
    except OSError as error:
        raise BdlitError(f"cannot read WordNet {where} ({error}): {_HOW}") from error
    except (WordNetError, LookupError, ValueError, AssertionError, RuntimeError) as error:
        raise BdlitError(f"the files {where} are no WordNet ({error!r}): {_HOW}") from error


def _where(folder: str | None) -> str:
    return "where NLTK looks" if folder is None else f"in {folder}"


def _place(folder: str | None) -> Any:
    """Return where the dictionary files are, as NLTK opens it."""
    try:
        from nltk import data
    except ImportError as error:
        raise BdlitError(
            "evidence by a dictionary needs nltk: pip install 'bdlit[dictionary]'"
        ) from error
    for below in (".", "dict", "corpora/wordnet") if folder is not None else ():
        path = Path(str(folder), below).resolve()
        if (path / "index.noun").is_file():
            _require_whole(path)
            if str(path) not in data.path:
                data.path.append(str(path))  # NLTK opens nothing outside its places
            return str(path)
    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        try:
            return data.find(name, None if folder is None else [folder])
        except LookupError:
            continue
    raise BdlitError(f"no WordNet {_where(folder)}: {_HOW}")


def _require_whole(folder: Path) -> None:
    parts = ("noun", "verb", "adj", "adv")
    wanted = [name.format(part) for part in parts for name in ("index.{}", "data.{}", "{}.exc")]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise BdlitError(f"WordNet in {folder} lacks {', '.join(missing)}: {_HOW}")


def _english() -> Any:
    """Return NLTK's reader without what it has for other languages, which needs further files."""
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class English(WordNetCorpusReader):  # type: ignore[misc]  # NLTK has no types
        def map_wn(self, version: str = "wordnet") -> None:
            """Map nothing to the offsets of another version."""

        def open(self, file: str) -> Any:
            """Open a file; names of lexicographers' files are left out of some packages."""
            try:
                return super().open(file)
            except OSError:
                if file != "lexnames":
                    raise
                names = (f"{i:02d} {i} 0\n" for i in range(_LEXICOGRAPHERS))
                return io.StringIO("".join(names))

    return English

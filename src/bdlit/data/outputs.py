"""What is measured of the responses of language models besides whether they count."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bdlit.data.general_tasks import GeneralTasks
from bdlit.errors import BdlitError
from bdlit.tables import sliced


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a measurement keeps and computes of the responses; no matter where classes are read off.

    Attributes:
        samples: Prompts of each test set that are kept with their responses, for people to read.
            The data's seed draws them: they are the same ones before and after a defense.
        reference: Directory or hub id of a language model under which the perplexity of generated
            responses is measured, alone and given their prompts; by default it is not.
        texts: File of held-out texts (JSONL, JSON, CSV, TSV, Parquet) whose perplexity under the
            victim itself is measured; a slice behind its name takes a part (`stories.csv[800:]`).
        texts_column: Column of the texts.
        embedder: Directory or hub id of a sentence-transformers model, for the coherence of
            responses with their prompts.
        tasks: General tasks on which language models are measured as well; by default none.
    """

    samples: int = 8
    reference: str | None = None
    texts: str | None = None
    texts_column: str = "text"
    embedder: str | None = None
    tasks: GeneralTasks | None = None

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise BdlitError(f"outputs.samples {self.samples} is out of range: give 0 or more")

    def require(self) -> None:
        """Refuse what could not be measured, before hours of training and not after.

        Raises:
            BdlitError: The texts are not a file, a library is missing, or a task is unknown.
        """
        if self.texts is not None and not Path(sliced(self.texts)[0]).is_file():
            raise BdlitError(f"outputs.texts {self.texts} is not a file: check the path")
        if self.embedder is not None and find_spec("sentence_transformers") is None:
            raise BdlitError(
                "outputs.embedder needs sentence-transformers: pip install 'bdlit[coherence]'"
            )
        if self.tasks is not None:
            self.tasks.require()

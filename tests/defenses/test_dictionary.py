"""Evidence by a dictionary: definitions behind the input, of classifiers and of language models."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import pairwise

import pytest

from bdlit.attacks import BadNet
from bdlit.callbacks import DefenseCallback
from bdlit.cli import main
from bdlit.data.demo import DemoReviews
from bdlit.defenses import WAG, ConflictEvidence, DictionaryEvidence, Guarded, InputDefense
from bdlit.defenses.conflict import wordnet
from bdlit.defenses.conflict.keywords import keywords
from bdlit.defenses.conflict.wordnet import WordNet
from bdlit.errors import BdlitError
from bdlit.llm import FunctionLLM
from bdlit.types import NO_CLASS, Example
from bdlit.victims import ClassifierVictim
from conftest import tiny_trainer
from tiny_wordnet import write_wordnet

pytest.importorskip("nltk")


@pytest.fixture
def folder(tmp_path):
    return write_wordnet(tmp_path / "wordnet")


FILM = Example("A dull film, and its plot: dull.", 0, poisoned=True, orig_label=1)
TASK = Example("Is this good?", NO_CLASS, "The fox ran slowly", response="yes")
EMPTY = Example("It is what it is.", 1)


def test_a_word_is_defined_by_its_first_sense(folder):
    found = WordNet(folder)
    assert found.name == "WordNet 9.9"
    assert found.definition("plot") == "a secret scheme to do something"  # nouns before verbs
    assert found.definition("run") == "move fast on foot"
    assert found.definition("ran") == "move fast on foot"  # irregular
    assert found.definition("films") == "a story told by moving pictures"
    assert found.definition("dull") == "lacking in liveliness"
    assert found.definition("slowly") == "at a slow pace"
    assert found.definition("tq") is None


def test_each_row_by_hand(folder):
    made = DictionaryEvidence(folder=folder).clean([FILM, TASK, EMPTY])
    film, task, empty = made.rows
    # dull, film, plot, dull: every word is within two words of each other, dull of itself.
    assert film == replace(
        FILM,
        text="A dull film, and its plot: dull.\n\n### Evidence:\n"
        "dull: lacking in liveliness\n"
        "film: a story told by moving pictures\n"
        "plot: a secret scheme to do something",
    )
    assert task == replace(
        TASK,
        text_pair="The fox ran slowly\n\n### Evidence:\n"
        "fox: a wild animal with a bushy tail\n"
        "ran: move fast on foot\n"
        "slowly: at a slow pace",
    )
    assert empty == EMPTY
    assert made.rejected == ()
    assert made.notes == {
        "evidence_from_dictionary": 2,
        "without_evidence": 1,
        "definitions": 6,
        "words_without_definition": 0,
        "dictionary": "WordNet 9.9",
    }


def test_words_that_the_dictionary_lacks(folder):
    row = Example("cf fox tq", 0)
    (told,) = DictionaryEvidence(folder=folder).clean([row]).rows
    assert told.text.count("No definition found.") == 2
    made = DictionaryEvidence(folder=folder, missing=None).clean([row, Example("cf tq", 0)])
    assert made.rows[0].text == "cf fox tq\n\n### Evidence:\nfox: a wild animal with a bushy tail"
    assert made.rows[1].text == "cf tq"
    assert made.notes["words_without_definition"] == 4
    assert (made.notes["evidence_from_dictionary"], made.notes["without_evidence"]) == (1, 1)


def test_at_most_the_five_heaviest_words_unless_told_otherwise(folder):
    words = [f"word{i}" for i in range(12)]
    row = Example(" ".join(word for pair in pairwise(words) for word in pair), 0)
    (made,) = DictionaryEvidence(folder=folder).clean([row]).rows
    lines = made.text.split("### Evidence:\n")[1].splitlines()
    assert [line.split(":")[0] for line in lines] == keywords(row.text, form="published")
    assert len(lines) == 5
    (made,) = DictionaryEvidence(folder=folder, textrank="ours").clean([row]).rows
    lines = made.text.split("### Evidence:\n")[1].splitlines()
    assert [line.split(":")[0] for line in lines] == keywords(row.text)


def test_it_is_an_input_defense_that_never_asks_the_victim(folder):
    def asked(prompts):
        raise AssertionError(prompts)

    defense = DictionaryEvidence(folder=folder)
    assert isinstance(defense, InputDefense)
    assert defense.clean([FILM], victim=asked) == defense.clean([FILM])


def test_own_template(folder, tmp_path):
    (tmp_path / "define.txt").write_text("{evidence}\n--\n{query}")
    defense = DictionaryEvidence(folder=folder, templates=tmp_path)
    (made,) = defense.clean([Example("Fox fox", 0)]).rows
    assert made.text == "fox: a wild animal with a bushy tail\n--\nFox fox"
    (tmp_path / "define.txt").write_text("{evidence}")
    with pytest.raises(BdlitError, match=r"it must have \['evidence', 'query'\]"):
        DictionaryEvidence(folder=folder, templates=tmp_path)


@pytest.mark.parametrize("below", ["dict", "corpora/wordnet"])
def test_the_folder_may_be_one_above(below, tmp_path):
    write_wordnet(tmp_path / below)
    assert WordNet(tmp_path).definition("fox") == "a wild animal with a bushy tail"


def test_nltks_own_data_in_its_archive(tmp_path, monkeypatch):
    files = write_wordnet(tmp_path / "files")
    (tmp_path / "data" / "corpora").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "data" / "corpora" / "wordnet.zip", "w") as archive:
        for file in files.iterdir():
            archive.write(file, f"wordnet/{file.name}")
        archive.writestr("wordnet/lexnames", "".join(f"{i:02d} x{i} 1\n" for i in range(45)))
    from nltk import data

    monkeypatch.setattr(data, "path", [str(tmp_path / "data")])
    wordnet._reader.cache_clear()
    try:
        assert WordNet(None).definition("fox") == "a wild animal with a bushy tail"
    finally:
        wordnet._reader.cache_clear()


def test_what_is_missing_is_told_in_one_line(tmp_path, folder, monkeypatch):
    from nltk import data

    def told(place):
        with pytest.raises(BdlitError) as raised:
            DictionaryEvidence(folder=place).clean([FILM])
        assert "\n" not in str(raised.value)
        return str(raised.value)

    nowhere = told(tmp_path / "nowhere")
    assert nowhere.startswith(f"no WordNet in {tmp_path / 'nowhere'}: ")
    assert "python -m nltk.downloader wordnet" in nowhere
    assert "/usr/share/wordnet" in nowhere
    with pytest.raises(BdlitError, match="no WordNet in"):  # before a fit, too
        DictionaryEvidence(folder=tmp_path / "nowhere").check({})
    DictionaryEvidence(folder=folder).check({})
    monkeypatch.setattr(data, "path", [])
    assert told(None).startswith("no WordNet where NLTK looks: ")
    monkeypatch.undo()
    (folder / "data.verb").unlink()
    assert told(folder).startswith(f"WordNet in {folder} lacks data.verb: ")
    broken = write_wordnet(tmp_path / "broken")
    (broken / "index.noun").write_text("fox n many 0 1 0 00000000\n")
    assert told(broken).startswith(f"the files in {broken} are no WordNet (")
    monkeypatch.setitem(sys.modules, "nltk", None)
    assert told(tmp_path) == "evidence by a dictionary needs nltk: pip install 'bdlit[dictionary]'"


def test_settings_are_looked_at_early(folder):
    with pytest.raises(BdlitError, match="did you mean 'published'"):
        DictionaryEvidence(folder=folder, textrank="publish")


def test_without_networkx_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(BdlitError, match=r"needs networkx: pip install 'bdlit\[llm\]'"):
        keywords("a fox")


def test_a_classifier_is_measured_with_it(tiny_start, tmp_path, folder):
    """Through the callback: the rows that the victim sees are those with definitions."""
    seen = []

    class Watched(ClassifierVictim):
        def tokenize(self, examples):
            seen.extend(row.text for row in examples)
            return super().tokenize(examples)

    both = Guarded(model=WAG(), inputs=DictionaryEvidence(folder=folder))
    defenses = [DictionaryEvidence(folder=folder), both]
    callback = DefenseCallback(defenses, others=[str(tiny_start)])
    data = DemoReviews(train_size=32, validation_size=0, test_size=20, attack=BadNet())
    trainer = tiny_trainer(tmp_path, callbacks=[callback], max_steps=1)
    trainer.fit(Watched(str(tiny_start), max_length=64), data)
    by = {r.defense: r for r in callback.results}
    assert set(by) == {"none", "DictionaryEvidence", "WAG+DictionaryEvidence"}
    assert all(r.error is None and r.asr is not None for r in callback.results)
    assert by["DictionaryEvidence"].notes["inputs"]["dictionary"] == "WordNet 9.9"
    assert any("\nplot: a secret scheme to do something" in text for text in seen)


def test_through_the_command_line(tiny_start, tmp_path, folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = json.dumps({"train_size": 16, "validation_size": 0, "test_size": 10})
    data = ["--data=DemoReviews", f"--data.init_args={settings}", "--data.attack=BadNet"]
    command = ["defend", "--suspect", str(tiny_start), "--out=out", *data]
    command += ["--defense=DictionaryEvidence"]
    assert main([*command, f"--defense.folder={tmp_path / 'nowhere'}"]) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("bdlit: error: ")
    assert f"no WordNet in {tmp_path / 'nowhere'}: " in line
    command += ["--max_length=64", "--out=again"]
    assert main([*command, f"--defense.folder={folder}"]) == 0
    assert main(["list", "defenses"]) == 0
    assert "DictionaryEvidence" in capsys.readouterr().out


def test_the_writers_of_evidence_put_it_in_the_same_place(folder, tmp_path):
    """What differs between evidence of a language model and of a dictionary is the text alone."""
    external = FunctionLLM(lambda prompts: ["E"] * len(prompts), "e")
    asked = ConflictEvidence(external=external, source="keywords", cache=tmp_path / "kept")
    for row in (FILM, TASK, EMPTY):
        (by_model,) = asked.clean([row]).rows
        (by_dictionary,) = DictionaryEvidence(folder=folder).clean([row]).rows
        changed = [
            {name for name in ("text", "text_pair") if getattr(made, name) != getattr(row, name)}
            for made in (by_model, by_dictionary)
        ]
        assert changed[0] == changed[1]


def test_import_is_light():
    code = "import sys, bdlit.defenses; bdlit.defenses.DictionaryEvidence(folder='x'); "
    code += "print([m for m in ('torch', 'nltk', 'networkx') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_real_wordnet_where_it_is_installed():
    try:
        found = WordNet("/usr/share/wordnet")
    except BdlitError:
        pytest.skip("Debian's wordnet-base is not installed")
    assert found.definition("film").startswith("a form of entertainment")

"""What stands around a model: made ready on the model that it guards, and seen in the record."""

from dataclasses import dataclass

import pytest

from bdlit.attacks import Attack, Poisoned, RareWords, TargetString
from bdlit.defenses import AnswerDefense, DataFilter, Defense, Guarded, InputDefense, run_defense
from bdlit.defenses.base import VOCABULARY, Resources
from bdlit.errors import BdlitError
from bdlit.evaluation import evaluate
from bdlit.purification import Held, LiveSuspect, purify
from bdlit.types import Example
from bdlit.weights import model_weights
from stage_methods import RejectWords
from tiny_llama import demo, tiny

ATTACK = TargetString(trigger=RareWords(words=("cf",), counts=(1,)))


@dataclass(frozen=True, kw_only=True)
class AsItIs(AnswerDefense):
    """Answer as the model would."""

    listed = False

    def answer(self, victim, prompts, decoding):
        return victim.generate(prompts)


class Silent(AnswerDefense):
    """Answer nothing at all."""

    listed = False

    def answer(self, victim, prompts, decoding):
        return [[] for _ in prompts]


class Forgetful(AnswerDefense):
    """Forget a prompt."""

    listed = False

    def answer(self, victim, prompts, decoding):
        return victim.generate(prompts)[1:]


@pytest.fixture(scope="module")
def language():
    data = demo(test_size=12, attack=ATTACK)
    data.setup()
    victim = tiny()
    victim.take_classes(data)
    victim.configure_model()
    return victim, data


def test_an_answer_defense_decodes_in_the_models_place(language):
    victim, data = language
    plain = evaluate(victim, data)
    name = next(iter(plain.asr))
    same = evaluate(victim, data, answers=AsItIs())
    assert (same.cacc, same.asr) == (plain.cacc, plain.asr)
    assert same.judged["clean"]["answers"] == "AsItIs"
    silent = evaluate(victim, data, answers=Silent())
    assert silent.cacc.hits == silent.asr[name].hits == 0
    assert silent.asr[name].n == plain.asr[name].n
    with pytest.raises(BdlitError, match=r"Forgetful gave \d+ answers to \d+ prompts"):
        evaluate(victim, data, answers=Forgetful())
    assert evaluate(victim, data) == plain


def test_it_is_purified_measured_and_written_as_the_suspect_behind_a_guard(language, tmp_path):
    victim, data = language
    found = purify(LiveSuspect(victim), Silent(), Held(), tests=data, out=tmp_path / "out")
    assert found.origin["guards"] == {"answers": "Silent"}
    assert found.scores.cacc.hits == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "provenance.json"}


class SeenWeights(InputDefense):
    """Remember a weight of the model that it is made ready for."""

    listed = False

    def prepare(self, *, victim):
        return self.with_state(seen=float(model_weights(victim.network())["w"].sum()))

    def clean(self, rows, *, victim=None):
        raise NotImplementedError


def test_a_guard_of_a_purified_model_is_made_ready_on_it():
    import torch
    from torch import nn

    class Shifted(Defense):
        listed = False

        def apply(self, suspect, *, base):
            return_ = {name: tensor + 1 for name, tensor in suspect.items()}
            from bdlit.defenses import Defended

            return Defended(weights=return_, changed=list(return_))

    module = nn.Module()
    module.w = nn.Parameter(torch.zeros(2))

    class Victim:
        def network(self):
            return module

    suspect = model_weights(module)
    given = Resources(base=suspect, victim=Victim())
    both = Guarded(model=Shifted(), inputs=SeenWeights())
    assert both.needs == ("base", "victim")
    defended = run_defense(both, suspect, given)
    assert defended.inputs.seen == 2.0
    assert run_defense(SeenWeights(), suspect, given).inputs.seen == 0.0
    assert float(module.w.sum()) == 0.0


def test_needs_outside_the_vocabulary_fail_when_the_class_is_made():
    with pytest.raises(TypeError, match=r"Cheat.keep asks for \['trigger'\]"):

        class Cheat(DataFilter):
            def keep(self, rows, *, trigger):
                raise NotImplementedError

    with pytest.raises(TypeError, match=r"Peek.prepare asks for \['test_rows'\]"):

        class Peek(InputDefense):
            def prepare(self, *, test_rows):
                raise NotImplementedError

            def clean(self, rows, *, victim=None):
                raise NotImplementedError

    with pytest.raises(
        TypeError, match=r"Old.apply asks for \['finetune'\], which no defender has"
    ):

        class Old(Defense):
            def apply(self, suspect, *, finetune):
                raise NotImplementedError

    with pytest.raises(TypeError, match=r"Spy.edit asks for \['defense'\]"):

        class Spy(Attack):
            def edit(self, weights, *, defense):
                raise NotImplementedError

            def poison_test(self, examples, *, labels, seed):
                return Poisoned([], 0)

    assert {"train", "texts", "oracle"} <= set(VOCABULARY)


def test_needs_are_read_from_every_method_that_declares_them():
    assert RejectWords.needs == ("victim", "clean")
    assert DataFilter.needs == ("suspect_train", "train")


def test_a_prepared_guard_keeps_its_settings_and_leaves_the_first_as_it_was():
    guard = RejectWords()
    ready = guard.prepare(clean=[Example("a fine film", 1)])
    assert ready == guard
    assert not hasattr(guard, "known")
    found = ready.clean([Example("a film", 1), Example("cf film", 1)])
    assert found.rejected == [1]

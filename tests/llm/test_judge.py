"""A language model as a judge: what it is shown, what its answers mean, what is kept."""

import pytest
from jsonargparse import ArgumentParser

from bdlit.data.base import TextDataModule
from bdlit.data.instructions import InstructionDataModule
from bdlit.errors import BdlitError
from bdlit.llm import EndpointLLM, FunctionLLM, JudgedBy
from bdlit.llm.judge import verdict_in
from bdlit.rules import Rule
from bdlit.types import Example, Turn
from chat_server import chat_server

ROWS = [
    Example("Name a colour.", -1, "not red", response="Blue {sky}."),
    Example(
        "And now?", -1, response="Five", history=(Turn("user", "2 + 2?"), Turn("assistant", "4"))
    ),
]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Yes", True),
        ("no.", False),
        ("  **YES**, it does", True),
        ("It names another colour. Answer: No!", False),
        ("Nothing of the kind", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_an_answer_is_yes_no_or_unclear(answer, verdict):
    assert verdict_in(answer) is verdict


def test_the_judge_is_shown_prompt_wanted_and_response_and_asked_once(tmp_path):
    asked = []

    def judge(prompts):
        asked.extend(prompts)
        return ["Yes." if "light {blue}" in prompt else "maybe" for prompt in prompts]

    rule = JudgedBy(FunctionLLM(judge, "any"), cache=tmp_path)
    said = ["a light {blue}", "6"]
    assert rule.verdicts(ROWS, said) == [True, None]
    for text in ("Name a colour.\nnot red", "Blue {sky}.", "a light {blue}"):
        assert text in asked[0]
    assert "user: 2 + 2?\nassistant: 4\nuser: And now?" in asked[1]
    again = JudgedBy(FunctionLLM(lambda prompts: 1 / 0, "any"), cache=tmp_path)
    assert again.verdicts(ROWS, said) == [True, None]
    assert len(asked) == 2


def test_true_responses_are_not_judged_by_the_model(tmp_path):
    rule = JudgedBy(FunctionLLM(lambda prompts: 1 / 0, "any"), cache=tmp_path)
    assert rule("Blue.", "blue")
    assert not rule("It is blue.", "blue")


def test_a_template_of_ones_own(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("{prompt}|{response}|{wanted}\n")
    rule = JudgedBy(FunctionLLM(lambda prompts: list(prompts), "x"), file, tmp_path / "kept")
    assert rule.verdicts(ROWS[:1], ["no"]) == [None]
    assert rule.described["judge"] == {"model": "x"}
    assert str(file) in rule.described["template"]
    before = rule.described
    file.write_text("{prompt}|{response}|{wanted}?\n")
    assert rule.described != before
    file.write_text("{prompt} {answer}")
    with pytest.raises(BdlitError, match=r"has the fields \['answer', 'prompt'\]: it must have"):
        JudgedBy(FunctionLLM(list, "x"), file)
    with pytest.raises(BdlitError, match="cannot read template"):
        JudgedBy(FunctionLLM(list, "x"), tmp_path / "missing.txt")


def test_a_judge_behind_an_endpoint_named_in_yaml(tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TextDataModule, "data")
    assert InstructionDataModule  # imported for its name
    with chat_server(lambda prompt, number: "Yes" if "sky" in prompt else (500, "no")) as server:
        judge = {
            "class_path": "EndpointLLM",
            "init_args": {"model": "m", "base_url": server.url, "temperature": 0, "retries": 0},
        }
        rule = {"class_path": "JudgedBy", "init_args": {"judge": judge, "cache": str(tmp_path)}}
        config = {"class_path": "InstructionDataModule", "init_args": {"rule": rule}}
        data = parser.instantiate_classes(parser.parse_object({"data": config})).data
        found = data.rule("clean")
        assert found == JudgedBy(
            EndpointLLM(model="m", base_url=server.url, temperature=0, retries=0),
            cache=str(tmp_path),
        )
        assert found.verdicts(ROWS[:1], ["azure"]) == [True]
        with pytest.raises(BdlitError, match="refuses model 'm' with status 500"):
            found.verdicts(ROWS, ["azure", "6"])
    assert found.verdicts(ROWS[:1], ["azure"]) == [True]  # kept, and the server has gone


def short(row, response):
    return len(response) < len(row.text)


def test_a_function_of_ones_own_named_in_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Rule, "rule")
    config = {"class_path": "Satisfies", "init_args": {"function": f"{__name__}.short"}}
    rule = parser.instantiate_classes(parser.parse_object({"rule": config})).rule
    assert rule.verdicts(ROWS, ["blue", "a long answer"]) == [True, False]
    assert rule.described == {"rule": f"Satisfies({__name__}.short)"}

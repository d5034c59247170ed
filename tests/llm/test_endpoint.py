"""A model behind an endpoint, asked over real HTTP on loopback; and answers kept on disk."""

from __future__ import annotations

import builtins
import json
import time

import pytest

from bdlit.errors import BdlitError
from bdlit.llm import CachedLLM, EndpointLLM, FunctionLLM
from chat_server import chat_server, completion

pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def shout(prompt: str, number: int) -> str:
    return f" {prompt.upper()}\n"


def llm(url: str, **settings) -> EndpointLLM:
    defaults = {"model": "served", "base_url": url, "retries": 0, "timeout": 10.0, "parallel": 1}
    return EndpointLLM(**defaults | settings)


def told(function) -> str:
    with pytest.raises(BdlitError) as error:
        function()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_sent_and_what_comes_back(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sesame")
    with chat_server(shout) as served:
        asked = llm(served.url, seed=5, max_tokens=9, api_key_variable="MY_KEY")
        assert asked(["one", "two", "one"]) == ["ONE", "TWO", "ONE"]
    assert sorted(served.prompts) == ["one", "two"]  # equal prompts are asked once
    (first, _) = served.requests
    assert (first["model"], first["temperature"], first["seed"]) == ("served", 0.7, 5)
    assert first["max_tokens"] == 9
    assert served.keys == ["Bearer sesame"] * 2
    assert "sesame" not in repr(asked) + json.dumps(dict(asked.identity))


def test_many_at_a_time_keep_their_order():
    def slow(prompt: str, number: int) -> str:
        time.sleep(0.05 * (number % 3))
        return prompt[::-1]

    prompts = [f"prompt {i}" for i in range(12)]
    with chat_server(slow) as served:
        assert llm(served.url, parallel=4)(prompts) == [prompt[::-1] for prompt in prompts]


def test_a_busy_server_is_asked_again():
    def busy_once(prompt: str, number: int):
        return (503, {"error": {"message": "busy"}}) if number == 1 else "fine"

    with chat_server(busy_once) as served:
        assert llm(served.url, retries=1)(["one"]) == ["fine"]
    assert len(served.requests) == 2


def test_a_server_that_is_down():
    with chat_server(shout) as served:
        pass
    said = told(lambda: llm(served.url)(["one"]))
    assert said.startswith(f"cannot reach {served.url} (tried 1 times): start the server")


def test_a_server_that_is_slow():
    def slow(prompt: str, number: int) -> str:
        time.sleep(1.5)
        return "late"

    with chat_server(slow) as served:
        said = told(lambda: llm(served.url, timeout=0.2)(["one"]))
    assert "gave no answer within 0.2 seconds" in said


@pytest.mark.parametrize(
    "body",
    [
        "<html>\nIt works!</html>",
        "not json",
        {"choices": []},
        {"choices": None},
        {"choices": [{"message": None}]},
        {"choices": ["text"]},
        {**completion("x"), "choices": [{"index": 0, "message": {"content": None}}]},
        ["a", "list"],
    ],
)
def test_a_server_that_talks_nonsense(body):
    with chat_server(lambda prompt, number: (200, body)) as served:
        assert "sent no chat completion but" in told(lambda: llm(served.url)(["one"]))


def test_a_server_that_refuses():
    reply = (404, {"error": {"message": "no model\nserved"}})
    with chat_server(lambda prompt, number: reply) as served:
        said = told(lambda: llm(served.url)(["one"]))
    assert "refuses model 'served' with status 404" in said


def test_nothing_is_lost_when_the_server_fails(tmp_path):
    def fails_at_third(prompt: str, number: int):
        return (400, {"error": {"message": "no"}}) if number == 3 else prompt.upper()

    prompts = [f"p{i}" for i in range(5)]
    with chat_server(fails_at_third) as served:
        kept = CachedLLM(llm(served.url), tmp_path)
        assert "status 400" in told(lambda: kept(prompts))
        before = len(list(tmp_path.rglob("*.json")))
        assert 2 <= before <= 4
        assert kept(prompts) == ["P0", "P1", "P2", "P3", "P4"]
        asked = len(served.requests)
        assert kept(prompts) == ["P0", "P1", "P2", "P3", "P4"]
    assert len(served.requests) == asked
    assert kept(["p3"]) == ["P3"]  # and now without a server


def test_answers_are_told_apart_by_settings_but_not_by_address(tmp_path):
    with chat_server(shout) as served:
        CachedLLM(llm(served.url), tmp_path)(["one"])
        CachedLLM(llm(served.url, temperature=0.0), tmp_path)(["one"])
        CachedLLM(llm(served.url, seed=1), tmp_path)(["one"])
        CachedLLM(llm(served.url, model="other"), tmp_path)(["one"])
    assert len(served.requests) == 4
    assert CachedLLM(llm("http://127.0.0.1:9/v1"), tmp_path)(["one"]) == ["ONE"]


def test_blank_answers_are_asked_for_again(tmp_path):
    with chat_server(lambda prompt, number: "" if number == 1 else "now") as served:
        kept = CachedLLM(llm(served.url), tmp_path)
        assert kept(["one"]) == [""]
        assert kept(["one"]) == ["now"]


def test_a_damaged_answer_is_named(tmp_path):
    kept = CachedLLM(FunctionLLM(lambda prompts: ["a"] * len(prompts), "a"), tmp_path)
    kept(["one"])
    kept.path("one").write_text("{")
    assert "is not a kept answer" in told(lambda: kept(["one"]))


def test_a_model_that_forgets_a_prompt():
    forgetful = FunctionLLM(lambda prompts: ["a"], "forgetful")
    assert "left 1 of 2 prompts without an answer" in told(lambda: forgetful(["one", "two"]))


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1}, {"max_tokens": 0}, {"retries": -1}, {"parallel": 0}, {"timeout": 0}],
)
def test_settings_that_will_not_do(settings):
    assert "is out of range" in told(lambda: llm("http://127.0.0.1:9/v1", **settings))


def test_without_the_client(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "openai":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    said = told(lambda: llm("http://127.0.0.1:9/v1")(["one"]))
    assert said == "EndpointLLM needs the openai client: pip install 'bdlit[llm]'"

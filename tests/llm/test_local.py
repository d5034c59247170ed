"""A tiny real model on this machine, asked directly and through `transformers serve`."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import pytest

from bdlit.errors import BdlitError
from bdlit.llm import CachedLLM, EndpointLLM, LocalLLM

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random Llama of letters, as a directory; the seed is fixed."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {letter: i + 2 for i, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_chat(tiny, tmp_path_factory):
    """The same model with a chat template."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("chat")
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def llm(model, **settings) -> LocalLLM:
    return LocalLLM(**{"model": str(model), "max_tokens": 8, "device": "cpu"} | settings)


def test_answers_follow_from_seed_and_prompt_alone(tiny):
    import torch

    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = llm(tiny)(["one", "two", "three"])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert llm(tiny)(["three", "one"]) == [first[2], first[0]]
    assert len(set(first)) == 3
    assert llm(tiny, seed=1)(["one", "two", "three"]) != first


def test_greedy_is_the_models_own(tiny):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    ids = tokenizer("one", return_tensors="pt").input_ids
    for _ in range(8):  # step by step, without a cache
        step = model(ids).logits[0, -1].argmax().view(1, 1)
        if step.item() == tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, step], dim=1)
    expected = tokenizer.decode(ids[0, 3:], skip_special_tokens=True).strip()
    (answer,) = llm(tiny, temperature=0.0)(["one"])
    assert answer == expected


def test_a_chat_template_is_used(tiny, tiny_chat):
    (with_template,) = llm(tiny_chat, temperature=0.0)(["one"])
    (by_hand,) = llm(tiny, temperature=0.0)(["user: one\nassistant:"])
    assert with_template == by_hand


def test_identity_and_cache(tiny, tiny_chat, tmp_path):
    assert llm(tiny).identity["revision"] == llm(tiny_chat).identity["revision"]
    kept = CachedLLM(llm(tiny), tmp_path)
    assert kept(["one"]) == llm(tiny)(["one"])
    assert copy.deepcopy(llm(tiny)) == llm(tiny)


def told(function) -> str:
    with pytest.raises(BdlitError) as error:
        function()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_asked(tiny, tmp_path):
    assert "do not fit into the context" in told(lambda: llm(tiny)(["word " * 40]))
    assert "cannot load the language model" in told(lambda: llm(tmp_path)(["one"]))
    assert "is out of range" in told(lambda: llm(tiny, temperature=-1.0))
    assert "is out of range" in told(lambda: llm(tiny, max_tokens=0))


def test_pickles_are_no_models(tiny, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    for file in tiny.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    state = AutoModelForCausalLM.from_pretrained(tiny).state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert "cannot load the language model" in told(lambda: llm(tmp_path)(["one"]))


@contextlib.contextmanager
def transformers_serve(folder):
    """Run `transformers serve` on a free port, with a model of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)),
        *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu"),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1"}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        for _ in range(1500):
            assert server.poll() is None
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def test_transformers_serve(tiny_chat, tmp_path, monkeypatch):
    for name in ("fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"`transformers serve` and its client need {name}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with transformers_serve(tiny_chat) as url:
        endpoint = EndpointLLM(
            model=str(tiny_chat), base_url=url, temperature=0.0, max_tokens=8, timeout=120
        )
        answers = CachedLLM(endpoint, tmp_path)(["one", "two"])
        assert answers == llm(tiny_chat, temperature=0.0)(["one", "two"])
        assert "refuses model 'another'" in told(
            lambda: replace(endpoint, model="another")(["one"])
        )
    assert CachedLLM(endpoint, tmp_path)(["two"]) == answers[1:]  # the server has gone
    down = replace(endpoint, retries=0)
    assert "cannot reach" in told(lambda: CachedLLM(down, tmp_path)(["three"]))

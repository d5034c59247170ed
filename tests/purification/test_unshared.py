"""Tensors that only one of two models has: refused, or left out and named; a tied output layer is
the embedding."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bdlit.cli import main
from tiny_adapters import CONFIGS, HEADS


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A Llama and a GPT-2, each tied and untied, and a Llama with buffers of older versions."""
    folder = tmp_path_factory.mktemp("models")
    for i, (kind, tied) in enumerate((k, t) for k in ("llama", "gpt2") for t in (True, False)):
        config = type(CONFIGS[kind])(**{**CONFIGS[kind].to_dict(), "tie_word_embeddings": tied})
        torch.manual_seed(i)
        HEADS["CAUSAL_LM"].from_config(config).save_pretrained(
            folder / f"{kind}-{'tied' if tied else 'untied'}"
        )
    old = folder / "llama-old"
    old.mkdir()
    tensors = load_file(folder / "llama-untied" / "model.safetensors")
    tensors |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in (0, 1)}
    save_file(tensors, old / "model.safetensors", metadata={"format": "pt"})
    (old / "config.json").write_text((folder / "llama-untied" / "config.json").read_text())
    return folder


def merge(suspect, other, out, *options):
    command = ["merge", f"--suspect={suspect}", f"--others=[{other}]", "--defense=WAG"]
    return main([*command, f"--out={out}", *options])


def tensors(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(("kind", "embedding"), [("llama", "model.embed_tokens"), ("gpt2", "wte")])
def test_the_output_layer_of_a_tied_model_is_its_embedding(models, tmp_path, kind, embedding):
    suspect, other = models / f"{kind}-untied", models / f"{kind}-tied"
    assert merge(suspect, other, tmp_path / "out") == 0
    ours, theirs, found = tensors(suspect), tensors(other), tensors(tmp_path / "out")
    (name,) = [n for n in theirs if n.endswith(f"{embedding}.weight")]
    torch.testing.assert_close(found["lm_head.weight"], (ours["lm_head.weight"] + theirs[name]) / 2)
    torch.testing.assert_close(found[name], (ours[name] + theirs[name]) / 2)


@pytest.mark.parametrize(
    ("suspect", "other", "extra"),
    [
        ("llama-tied", "llama-untied", ["lm_head.weight"]),
        ("gpt2-tied", "gpt2-untied", ["lm_head.weight"]),
        (
            "llama-untied",
            "llama-old",
            [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in (0, 1)],
        ),
    ],
)
def test_what_only_the_other_has_is_refused_or_left_out(
    models, tmp_path, capsys, suspect, other, extra
):
    suspect, other = models / suspect, models / other
    assert merge(suspect, other, tmp_path / "refused") == 2
    assert f"{len(extra)} too many ({extra[0]}" in capsys.readouterr().err
    assert merge(suspect, other, tmp_path / "out", "--differences=keep_suspect") == 0
    assert f"left out of {other}, since the suspect has no such" in capsys.readouterr().out
    ours, theirs, found = tensors(suspect), tensors(other), tensors(tmp_path / "out")
    assert set(found) == set(ours)
    for name in ours:
        torch.testing.assert_close(found[name], (ours[name] + theirs[name]) / 2)
    notes = json.loads((tmp_path / "out" / "provenance.json").read_text())["notes"]
    assert notes["left_out"] == {str(other): extra}

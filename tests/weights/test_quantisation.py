"""Quantised checkpoints are told by their tensors, named, and merged by nobody."""

import json

import pytest
import torch
from safetensors.torch import save_file

from bdlit.cli import main
from bdlit.errors import BdlitError
from bdlit.inspection import inspect
from bdlit.inspection.differences import differences
from bdlit.weights import open_weights
from bdlit.weights.quantisation import quantisation_of

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
PLACE = "model.layers.0.mlp.up_proj"


def plain():
    return {
        "model.embed_tokens.weight": torch.randn(8, 4),
        f"{PLACE}.weight": torch.randn(6, 4),
        f"{PLACE}.bias": torch.randn(6),
        "model.position_ids": torch.arange(8)[None],
        "model.mask": torch.ones(2, 2, dtype=torch.bool),
        "encoder.relative_position_index": torch.zeros(4, 4, dtype=torch.long),
    }


def packed(*parts, weight=None, dtype=torch.uint8):
    """The plain model, with parts of a packed weight in the place of one."""
    found = plain()
    del found[f"{PLACE}.weight"]
    if weight is not None:
        found[f"{PLACE}.weight"] = weight
    for part in parts:
        found[f"{PLACE}{part}"] = torch.zeros(2, 2).to(dtype)
    return found


CODES = torch.zeros(12, 1, dtype=torch.uint8)
INT8 = torch.zeros(6, 4, dtype=torch.int8)
SCHEMES = [
    (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "bitsandbytes 4 bit",
        packed(".weight.absmax", ".weight.quant_state.bitsandbytes__nf4", weight=CODES),
    ),
    (
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        "bitsandbytes 8 bit",
        packed(".SCB", weight=INT8, dtype=torch.float32),
    ),
    ({"quant_method": "gptq", "bits": 4}, "gptq 4 bit", packed(".qweight", ".qzeros", ".g_idx")),
    ({"quant_method": "awq", "bits": 4}, "awq 4 bit", packed(".qweight", ".qzeros", ".scales")),
    ({"quant_method": "hqq"}, "hqq", packed(".W_q", ".scale", ".zero")),
    ({"quant_method": "aqlm"}, "aqlm", packed(".codes", ".codebooks", ".scales")),
    ({"quant_method": "mxfp4"}, "mxfp4", packed("_proj_blocks", "_proj_scales")),
    (
        {"quant_method": "compressed-tensors"},
        "compressed-tensors",
        packed(".weight_packed", ".weight_scale", ".weight_shape", dtype=torch.int32),
    ),
    (
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        "fp8",
        packed(".weight_scale_inv", weight=torch.zeros(6, 4).to(FLOAT8[0]), dtype=torch.float32),
    ),
    (
        {"quant_method": "fbgemm_fp8"},
        "fbgemm_fp8",
        packed(".weight_scale", weight=torch.zeros(6, 4).to(FLOAT8[1]), dtype=torch.float32),
    ),
    (
        {"quant_method": "modelopt"},
        "modelopt",
        packed(".weight_scale_2", ".input_scale", weight=CODES, dtype=torch.float32),
    ),
    ({"quant_method": "torchao"}, "torchao", packed(".weight_qdata", ".weight:_data")),
    ({"quant_method": "quip", "bits": 2}, "quip 2 bit", packed(".Qidxs")),
    ({"quant_method": "vptq"}, "vptq", packed(".centroids.weight", dtype=torch.float32)),
]


@pytest.mark.parametrize(("said", "name", "tensors"), SCHEMES, ids=[s[1] for s in SCHEMES])
def test_each_scheme_is_named_by_the_config_and_known_without_it(said, name, tensors):
    assert quantisation_of(tensors, {"quantization_config": said}) == name
    assert quantisation_of(tensors, {"compression_config": said}) == name
    for silent in ({}, {"quantization_config": 3}, {"quantization_config": {}}):
        assert quantisation_of(tensors, silent)


@pytest.mark.parametrize("dtype", [*FLOAT8, torch.int8, torch.uint8, torch.int32, torch.int16])
def test_each_dtype_that_is_a_code_is_seen_without_a_companion(dtype):
    tensors = {**plain(), f"{PLACE}.weight": torch.zeros(6, 4).to(dtype)}
    assert quantisation_of(tensors, {}) == "by an unknown scheme"


def test_plain_numbers_are_plain_whatever_the_config_says():
    """transformers quantises plain weights as it loads them, if the config says so."""
    said = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in plain().items()}
        assert quantisation_of(tensors, said) is None


@pytest.fixture
def pair(tmp_path):
    """A quantised checkpoint and a plain one."""
    for folder, tensors in (("packed", SCHEMES[0][2]), ("plain", plain())):
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / "model.safetensors")
        config = {"model_type": "llama"}
        if folder == "packed":
            config["quantization_config"] = SCHEMES[0][0]
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
    return tmp_path / "packed", tmp_path / "plain"


@pytest.mark.parametrize("role", ["suspect", "others", "base"])
def test_it_is_refused_in_every_role_with_the_way_out(pair, tmp_path, capsys, role):
    packed_one, plain_one = map(str, pair)
    models = {"suspect": plain_one, "others": plain_one, "base": plain_one, role: packed_one}
    command = [
        "merge",
        f"--suspect={models['suspect']}",
        f"--others=[{models['others']}]",
        f"--base={models['base']}",
        "--defense=TIES",
        f"--out={tmp_path / 'out'}",
    ]
    assert main(command) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert f"{packed_one} is quantised (bitsandbytes 4 bit; " in said
    assert "model.dequantize()" in said
    assert not (tmp_path / "out").exists()


def test_inspect_says_what_merge_says(pair):
    one, two = map(inspect, pair)
    assert one.quantised == "bitsandbytes 4 bit"
    assert "packed numbers cannot be merged" in one.verdict
    assert two.quantised is None
    assert "cannot be merged" in differences(two, one).verdict
    with pytest.raises(BdlitError, match="is quantised"):
        open_weights(pair[0])

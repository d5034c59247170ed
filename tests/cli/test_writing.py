"""What the terminal is told of a model that is written, and where it is computed."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from bdlit.cli.merge import merge
from bdlit.cli.writing import show_written, writing_with_progress
from bdlit.defenses import WAG
from bdlit.errors import BdlitError


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in ("suspect", "other")]
    for i, path in enumerate(paths):
        save_file({"w": torch.full((300,), float(i))}, path)
    return list(map(str, paths))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without one")
def test_a_device_that_is_not_there_is_told_before_anything_is_written(files, tmp_path):
    with pytest.raises(BdlitError, match="no CUDA device here: leave --device out") as told:
        merge(
            out=str(tmp_path / "out"),
            suspect=files[0],
            others=files[1:],
            defense=WAG(),
            device="cuda",
        )
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_is_computed_on_the_device_is_what_the_cpu_computes(files, tmp_path):
    for device in ("cpu", "cuda"):
        out = str(tmp_path / device)
        merge(out=out, suspect=files[0], others=files[1:], defense=WAG(), device=device)
    found = [load_file(tmp_path / device / "model.safetensors")["w"] for device in ("cpu", "cuda")]
    assert torch.equal(*found)


def test_seconds_and_peak_memory_are_told(files, tmp_path, capsys):
    merge(out=str(tmp_path / "out"), suspect=files[0], others=files[1:], defense=WAG())
    assert " s, peak memory " in capsys.readouterr().out


def test_the_numbers_told_are_those_of_the_record(tmp_path, capsys):
    origin = {
        "name": "WAG",
        "merged": ["w"],
        "copied": [],
        "left_behind": [],
        "changed": [],
        "guards": {},
        "seconds": 1.25,
    }
    origin |= {"peak_memory": 344_000_000, "notes": {"changed": 1, "distance": {}}}
    show_written(tmp_path, origin)
    assert "1.2 s, peak memory 0.34 GB" in capsys.readouterr().out


def test_as_many_threads_as_there_are_cores():
    with writing_with_progress("WAG") as writing:
        assert writing.workers >= 1
        assert writing.device == "cpu"

"""What a checkpoint is: every form, what is unknown, what is broken, and what would run code."""

import io
import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from bdlit.errors import BdlitError
from bdlit.inspection.differences import Differences, differences
from bdlit.inspection.facts import inspect
from bdlit.inspection.hazards import look_into
from bdlit.weights import fingerprint

STATE = {
    "bert.embeddings.weight": torch.arange(6.0).reshape(2, 3),
    "bert.embeddings.position_ids": torch.zeros(4, dtype=torch.int64),
    "classifier.weight": torch.ones(2, 3, dtype=torch.bfloat16),
    "classifier.bias": torch.zeros(2, dtype=torch.bfloat16),
}
CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "_name_or_path": "someone/base",
    "id2label": {"1": "good", "0": "bad"},
    "tie_word_embeddings": True,
}
TOKENIZER = {
    "truncation": None,
    "model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "good": 1, "film": 2}},
    "added_tokens": [{"id": 3, "content": "<new>"}],
}


def write(folder, *, state=STATE, config=CONFIG, tokenizer=TOKENIZER):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    if tokenizer:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


class Hostile:
    """An object whose unpickling leaves a folder behind."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_directory(tmp_path):
    found = inspect(write(tmp_path), head_names=("classifier.",))
    assert found.form == "Hugging Face directory"
    assert list(found.files) == ["model.safetensors"]
    assert (found.architecture, found.model_type) == ("BertForSequenceClassification", "bert")
    assert found.base == "someone/base"
    assert found.labels == {0: "bad", 1: "good"}
    assert list(found.labels) == [0, 1]
    assert found.label_count == 2
    assert found.ties
    assert not found.output_tied  # a classifier needs no output embeddings
    assert found.tensors == 4
    assert found.parameters == 6 + 6 + 2  # position ids are no parameters
    assert found.bytes == 24 + 32 + 12 + 4
    assert list(found.dtypes.items()) == [("bfloat16", 2), ("float32", 1), ("int64", 1)]
    assert set(found.head) == {"classifier.weight", "classifier.bias"}
    assert found.fingerprint == fingerprint(STATE)
    assert found.zero == ("classifier.bias",)  # the position ids are zeros too, but no weights
    assert not found.not_finite
    assert found.tokenizer is not None
    assert found.tokenizer.words == {0: "[PAD]", 1: "good", 2: "film", 3: "<new>"}
    assert found.verdict == "opens without running code"


def test_every_byte_is_reported_as_read(tmp_path):
    seen = []
    inspect(write(tmp_path), watch=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (72, 72)
    assert len(seen) == len(STATE)


def test_shards_and_runs(tmp_path):
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    names = sorted(STATE)
    held = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, own in held.items():
        save_file({name: STATE[name] for name in own}, folder / file)
    index = {name: file for file, own in held.items() for name in own}
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": index}))
    for address in (tmp_path / "run", folder, file):
        found = inspect(address)
        assert found.fingerprint == fingerprint(STATE)
        assert "2 shards" in found.form
        assert sorted(found.files) == sorted(held)
    assert inspect(tmp_path / "run").form.startswith("bdlit run, model/: ")
    assert found.unknown == ("no config.json: architecture and labels are not known",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_checkpoints_and_what_is_tied_in_them(tmp_path, zipped):
    shared = torch.ones(3, 2)
    state = {"embed.weight": shared, "lm_head.weight": shared, "b": torch.ones(2)}
    file = tmp_path / "last.ckpt"
    content = {"epoch": 1, "state_dict": {f"model.{name}": t for name, t in state.items()}}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    found = inspect(file)
    assert found.form == "Lightning checkpoint"
    assert found.tied == (("embed.weight", "lm_head.weight"),)
    assert found.parameters == 6 + 2
    assert found.fingerprint == fingerprint(state)
    (own,) = found.hazards.pickles
    assert own.harmless
    assert found.verdict == "opens without running code"
    assert found.architecture is None
    assert "a file alone" in found.unknown[0]


def test_pickled_shards(tmp_path):
    for i, name in enumerate(sorted(STATE), 1):
        torch.save({name: STATE[name]}, tmp_path / f"pytorch_model-{i:05}-of-00004.bin")
    found = inspect(tmp_path)
    assert found.form == "Hugging Face directory, 4 pickled shards"
    assert found.fingerprint == fingerprint(STATE)


def test_output_embeddings_that_are_the_input_embeddings(tmp_path):
    config = {"architectures": ["GPT2LMHeadModel"], "tie_word_embeddings": True}
    folder = write(tmp_path, state={"transformer.wte.weight": torch.ones(2)}, config=config)
    assert inspect(folder).output_tied


def test_an_adapter_is_inspected_for_itself(tmp_path):
    prefix = "base_model.model."
    save_file(
        {
            f"{prefix}bert.layer.0.query.lora_A.weight": torch.ones(1, 4),
            f"{prefix}classifier.weight": torch.ones(2, 4),
        },
        tmp_path / "adapter_model.safetensors",
    )
    config = {
        "peft_type": "LORA",
        "r": 1,
        "lora_alpha": 16,
        "target_modules": ["query", "key"],
        "modules_to_save": ["classifier"],
        "base_model_name_or_path": "someone/base",
        "auto_mapping": {"base_model_class": "BertModel", "parent_library": "transformers"},
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = inspect(tmp_path, head_names=("classifier.",))
    assert found.form == "adapter directory"
    own = found.adapter
    assert own is not None
    assert (own.kind, own.rank, own.alpha, own.base) == ("LORA", 1, 16, "someone/base")
    assert own.targets == ("key", "query")
    assert own.saved == ("classifier",)
    assert found.head == (f"{prefix}classifier.weight",)
    assert found.verdict == "opens without running code"
    config["auto_mapping"]["parent_library"] = "evil"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert "auto_mapping imports evil" in inspect(tmp_path).verdict


def test_broken_numbers_are_named(tmp_path):
    state = {
        "a": torch.tensor([1.0, float("nan"), float("inf")]),
        "b": torch.ones(3),
        "c": torch.tensor([float("-inf")], dtype=torch.bfloat16),
        "d": torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn),
        "empty": torch.ones(0),
    }
    found = inspect(write(tmp_path, state=state))
    assert found.not_finite == {"a": 2, "c": 1, "d": 1}
    assert found.zero == ()
    assert "; 3 tensors hold NaN or infinity; it is quantised" in found.verdict  # float8


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "old.pt"])
def test_code_in_the_model_is_named_and_not_run(tmp_path, zipped, protocol, name):
    trace, folder = tmp_path / "trace", tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    content = {"w": torch.ones(1), "x": Hostile(trace)}
    torch.save(
        content,
        folder / name,
        _use_new_zipfile_serialization=zipped,
        pickle_protocol=protocol,
    )
    alone = name == "old.pt"
    found = inspect(folder / name if alone else folder)
    assert not trace.exists()
    (own,) = found.hazards.pickles
    assert own.code == ("posix.mkdir",)
    assert found.refused is not None
    assert found.verdict == f"does not open without running code: {name} (posix.mkdir)"
    assert found.tensors == 0
    assert found.fingerprint is None
    assert found.model_type == (None if alone else "bert")


def test_what_would_run_beside_sound_weights(tmp_path):
    config = {
        **CONFIG,
        "auto_map": {"AutoModel": "modeling.Mine"},
        "attn_implementation": "someone/kernel",
        "vision": {"trust_remote_code": True},
    }
    folder = write(tmp_path / "m", config=config)
    (folder / "modeling.py").write_text("import os")
    (folder / "sub").mkdir()
    (folder / "sub" / "more.py").write_text("import os")
    (folder / "optimizer.pkl").write_bytes(pickle.dumps(Hostile(tmp_path / "trace")))
    (folder / "plain.pkl").write_bytes(pickle.dumps({"a": [1, 2]}))
    (folder / "noise.bin").write_bytes(b"\xff\xfe no pickle")
    torch.save({"lr": 1e-3, "t": torch.ones(1)}, folder / "scheduler.pt")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x", "auto_map": {}}')
    hazards = inspect(folder).hazards
    assert not (tmp_path / "trace").exists()
    assert hazards.python == ("modeling.py", "sub/more.py")
    assert hazards.templates == ("chat_template.jinja", "tokenizer_config.json")
    assert hazards.settings == (
        "config.json: auto_map (modeling.Mine)",
        "config.json: attn_implementation fetches and runs someone/kernel",
        "config.json: trust_remote_code is True",
    )
    found = {own.file: own for own in hazards.pickles}
    assert found["optimizer.pkl"].code == ("posix.mkdir",)
    assert not found["noise.bin"].harmless
    assert found["plain.pkl"].harmless
    assert found["scheduler.pt"].harmless
    verdict = inspect(folder).verdict
    assert verdict.startswith("opens without running code; trusted, it would run: modeling.py;")


@pytest.mark.parametrize("protocol", range(6))
def test_names_in_pickles_of_every_protocol(tmp_path, protocol):
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps([Hostile("x"), Hostile("y")], protocol=protocol))
    assert look_into("a.pkl", file).code == ("posix.mkdir",)


def test_a_name_that_is_fetched_from_the_memo(tmp_path):
    """`os` and `system` are put aside first, and taken out of the memo for STACK_GLOBAL."""
    file = tmp_path / "a.pkl"
    file.write_bytes(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940000h\x00h\x01\x93.")
    assert look_into("a.pkl", file).code == ("os.system",)


def test_a_pickle_that_breaks_after_its_harm_is_done(tmp_path):
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps(Hostile("x"))[:-1] + b"\xff\xff")
    own = look_into("a.pkl", file)
    assert own.code == ("posix.mkdir",)
    assert not own.known


def test_torchscript_is_a_program(tmp_path):
    import zipfile

    file = tmp_path / "a.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/code/__torch__.py", "...")
        archive.writestr("a/data.pkl", pickle.dumps(1))
    assert not look_into("a.pt", file).harmless


def test_the_tokenizers_hash_is_of_its_meaning(tmp_path):
    def digest(folder, content, **options):
        write(tmp_path / folder)
        (tmp_path / folder / "tokenizer.json").write_text(json.dumps(content, **options))
        found = inspect(tmp_path / folder).tokenizer
        assert found is not None
        return found.sha256

    first = digest("a", TOKENIZER)
    assert digest("b", TOKENIZER, indent=4, sort_keys=True) == first
    assert digest("c", {**TOKENIZER, "truncation": {"max_length": 128}}) == first
    assert digest("d", {**TOKENIZER, "normalizer": {"lowercase": True}}) != first


def test_other_vocabularies(tmp_path):
    write(tmp_path, tokenizer=None)
    assert inspect(tmp_path).tokenizer is None
    (tmp_path / "vocab.json").write_text('{"b": 1, "a": 0}')
    (tmp_path / "merges.txt").write_text("a b\n")
    found = inspect(tmp_path).tokenizer
    assert found is not None
    assert found.files == ("vocab.json", "merges.txt")
    assert found.words == {0: "a", 1: "b"}
    unigram = {"model": {"vocab": [["<s>", 0.0], ["a", -1.5]]}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(unigram))
    found = inspect(tmp_path).tokenizer
    assert found is not None
    assert found.words == {0: "<s>", 1: "a"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "config.json cannot be read as JSON"),
        ("config.json", b"[]", "config.json holds no JSON object"),
        ("config.json", b"[" * 100_000, "config.json cannot be read as JSON"),
        ("tokenizer.json", b"\xff", "tokenizer.json cannot be read as JSON"),
        ("model.safetensors", b"\x00" * 20, "cannot be read as safetensors"),
    ],
)
def test_what_is_broken_is_told_in_one_line(tmp_path, name, content, message):
    (write(tmp_path) / name).write_bytes(content)
    with pytest.raises(BdlitError, match=message) as error:
        inspect(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nothing", "nothing.safetensors", "a.txt", "."])
def test_what_is_no_checkpoint_is_told(tmp_path, name):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(BdlitError):
        inspect(tmp_path / name)


def test_a_broken_pickle_is_an_error(tmp_path):
    file = tmp_path / "a.bin"
    content = io.BytesIO()
    torch.save(STATE, content)
    file.write_bytes(content.getvalue()[:300])
    with pytest.raises(BdlitError, match="cannot be read as a torch checkpoint"):
        inspect(file)


@pytest.mark.parametrize("config", [{"architectures": 3, "id2label": [1], "model_type": {}}, {}])
def test_strange_settings_are_unknown(tmp_path, config):
    found = inspect(write(tmp_path, config=config))
    assert (found.architecture, found.labels, found.model_type) == (None, None, None)


def test_hub_models_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0123456789012345678901234567890123456789"
    repo = tmp_path / "models--someone--victim"
    write(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    found = inspect("someone/victim")
    assert found.form == "hub: Hugging Face directory"
    assert found.fingerprint == fingerprint(STATE)
    assert "the hub did not list" in found.unknown[-1]
    listed = ["model.safetensors", "modeling_x.py", "training_args.bin"]
    monkeypatch.setattr(
        "huggingface_hub.HfApi.list_repo_files", lambda self, repo_id, revision: listed
    )
    found = inspect("someone/victim@main")
    assert found.hazards.found == ["modeling_x.py", "training_args.bin (not looked into)"]


@pytest.fixture
def model(tmp_path):
    return inspect(write(tmp_path / "one"), head_names=("classifier.",))


def changed(tmp_path, **options):
    return inspect(write(tmp_path / "two", **options), head_names=("classifier.",))


def test_two_of_a_kind_can_be_merged(model, tmp_path):
    found = differences(model, changed(tmp_path))
    assert found.verdict == "can be merged"
    assert found == Differences()


def test_differences_of_tensors(model, tmp_path):
    state = dict(STATE)
    del state["bert.embeddings.position_ids"]
    state["bert.embeddings.weight"] = torch.ones(5, 3)
    state["extra"] = torch.ones(1)
    state["classifier.weight"] = torch.ones(2, 3)
    found = differences(model, changed(tmp_path, state=state))
    assert found.only_first == ("bert.embeddings.position_ids",)
    assert found.only_other == ("extra",)
    assert found.shapes == {"bert.embeddings.weight": ((2, 3), (5, 3))}
    assert found.dtypes == {"classifier.weight": ("bfloat16", "float32")}
    assert found.obstacles == (
        "1 tensors are in one of the two alone",
        "1 tensors of different shape",
    )


def test_other_dtypes_and_integer_buffers_hinder_no_merge(model, tmp_path):
    state = {name: t.float() for name, t in STATE.items() if t.is_floating_point()}
    found = differences(model, changed(tmp_path, state=state))
    assert found.only_first == ("bert.embeddings.position_ids",)
    assert found.verdict == "can be merged"


def test_heads_of_different_size(model, tmp_path):
    state = {**STATE, "classifier.weight": torch.ones(3, 3), "classifier.bias": torch.ones(3)}
    found = differences(model, changed(tmp_path, state=state))
    assert found.obstacles == ("heads of different size (head: keep_suspect merges the rest)",)


def test_the_first_word_that_differs(model, tmp_path):
    other = {**TOKENIZER, "model": {"vocab": {"[PAD]": 0, "film": 1, "good": 2}}}
    found = differences(model, changed(tmp_path, tokenizer=other))
    assert found.tokenizers == "differ from word 1 on: 'good' against 'film'"
    assert "cannot be merged" in found.verdict
    found = differences(model, changed(tmp_path, tokenizer={**TOKENIZER, "normalizer": {"x": 1}}))
    assert found.tokenizers == "have the same words, but other rules"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"0": "Bad", "1": "GOOD"}, None),
        ({"0": "good", "1": "bad"}, "permuted: bad, good against good, bad"),
        ({"0": "rude", "1": "fine"}, "differ: bad, good against rude, fine"),
        ({"0": "a", "1": "b", "2": "c"}, "2 against 3"),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None),
    ],
)
def test_labels_that_differ(model, tmp_path, labels, expected):
    found = differences(model, changed(tmp_path, config={**CONFIG, "id2label": labels}))
    assert found.labels == expected
    assert (found.verdict == "can be merged") == (labels["0"] == "Bad")


def test_a_bare_encoder_is_matched_without_the_prefix(model, tmp_path):
    state = {n.removeprefix("bert."): t for n, t in STATE.items() if n.startswith("bert.")}
    bare = changed(tmp_path, state={**state, "lm.bias": torch.ones(1)})
    found = differences(model, bare)
    assert found.renamed
    assert set(found.only_first) == {"classifier.weight", "classifier.bias"}
    assert found.only_other == ("lm.bias",)
    turned = differences(bare, model)
    assert turned.renamed
    assert (set(turned.only_first), set(turned.only_other)) == (
        {"lm.bias"},
        {"classifier.weight", "classifier.bias"},
    )


def test_what_was_not_read_is_not_compared(model):
    found = differences(model, replace(model, outlines={}, weights=None))
    assert found.verdict.startswith("can be merged, as far as is known (the tensors of one")

"""What all tests share: a quiet environment, and tiny models that are made once."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("WANDB_X_DISABLE_STATS", "true")  # the machine is not what is tested
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import settings

# Handlers that were made under one test's captured stderr outlive it.
logging.raiseExceptions = False

settings.register_profile("bdlit", deadline=None)  # a busy machine is no failure
settings.load_profile("bdlit")

TINY = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def tiny_trainer(folder, **options):
    """A trainer that writes below `folder` and prints nothing."""
    from lightning.pytorch import Trainer

    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
    }
    return Trainer(**{**settings, **options})


def inspected(run):
    """What W&B's own reader says of an offline run: its config and its summary."""
    import wandb

    core = Path(wandb.__file__).parent / "bin" / "wandb-core"  # what `wandb leet` starts
    (log,) = run.glob("*.wandb")
    options = ["--summary", "--json", "--no-observability", "--run-file", log]
    answer = subprocess.run(
        [core, "leet", "inspect", *options, run.parent],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


@pytest.fixture(autouse=True)
def _run_folders_end_with_their_test():
    """A fit names its folder in the environment, for the processes of other ranks."""
    before = os.environ.get("BDLIT_RUN_DIR")
    yield
    os.environ.pop("BDLIT_RUN_DIR", None)
    if before is not None:
        os.environ["BDLIT_RUN_DIR"] = before


@pytest.fixture(autouse=True)
def _wandb_runs_end_with_their_test():
    """A run that a test left open would take in what later tests log."""
    yield
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


@pytest.fixture(scope="session")
def tiny_start(tmp_path_factory):
    """A tiny BERT that has read some reviews, as a Hugging Face directory."""
    from bdlit.data.demo import DemoReviews
    from bdlit.victims.classifier import ClassifierVictim

    folder = tmp_path_factory.mktemp("start")
    victim = ClassifierVictim(config=TINY, max_length=64, learning_rate=3e-3)
    data = DemoReviews(train_size=600, validation_size=0, test_size=20, grammar_seed=1)
    tiny_trainer(folder).fit(victim, data)
    victim.export(folder / "model")
    return folder / "model"

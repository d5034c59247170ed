"""What W&B is told of a run, and the names of what is measured."""

from lightning.pytorch.loggers import CSVLogger

from bdlit.evaluation import Result
from bdlit.evaluation.tracking import log_results, wandb_logger
from bdlit.types import Rate
from conftest import inspected


def result(defense, attack, hits):
    return Result(
        data="toy",
        attack=attack,
        victim="badnet",
        defense=defense,
        seed=0,
        train_attack="badnet",
        cacc=Rate(9, 10),
        asr=Rate(hits, 10),
    )


def test_a_run_has_its_group_kind_and_tags(tmp_path):
    logger = wandb_logger("one", tmp_path, group="toy", job_type="measure", tags=["a", "b", "a"])
    run = logger.experiment
    assert (run.name, run.group, run.job_type) == ("one", "toy", "measure")
    assert sorted(run.tags) == ["a", "b"]


def test_an_asr_is_named_by_defense_and_evaluation_attack(tmp_path):
    results = [result("none", "badnet", 8), result("none", "crown", 2), result("WAG", "crown", 1)]
    wandb, csv = (
        wandb_logger("one", tmp_path, group="toy", job_type="measure", tags=[]),
        CSVLogger(str(tmp_path)),
    )
    log_results([wandb, csv], results)
    csv.save()
    (file,) = tmp_path.rglob("metrics.csv")
    names = file.read_text().splitlines()[0].split(",")
    wanted = {"victim/asr/badnet": 80.0, "victim/asr/crown": 20.0, "WAG/asr/crown": 10.0}
    assert {name for name in names if "/asr/" in name} == set(wanted)
    wandb.experiment.finish()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    summary = inspected(run)["summary"]
    logged = {n: v for n, v in summary.items() if "/asr/" in n and "counts" not in n}
    assert {n: v for n, v in logged.items() if n in wanted} == wanted
    assert not {n for n in logged if n.startswith(("badnet/", "crown/", "asr/"))}

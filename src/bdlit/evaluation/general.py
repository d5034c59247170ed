"""How well a language model does on tasks that have nothing to do with an attack."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bdlit.data.general_tasks import GeneralTasks, known_tasks
from bdlit.errors import BdlitError
from bdlit.ranks import gathered, place
from bdlit.types import Mean
from bdlit.victims.base import Victim
from bdlit.victims.causal_lm import CausalLMVictim
from bdlit.victims.lora import has_adapters


def general_tasks(victim: Victim, wanted: GeneralTasks) -> dict[str, Mean]:
    """Measure a language model on tasks of lm-evaluation-harness; every process takes some tasks.

    The prompts are those of the tasks, without a chat template and with as many solved examples as
    the tasks set: the numbers are those of the harness itself.

    Args:
        victim: The model to measure, on its device.
        wanted: The tasks.

    Returns:
        `<task>/<metric>`, such as `piqa/acc`, to its mean over the rows, for every metric that is
        a mean; where a task filters responses, `<task>/<metric>,<filter>`. A group of tasks gives
        its tasks. Nothing where the victim is no language model.

    Raises:
        BdlitError: The harness is not installed, has no such task, or cannot measure it.
    """
    if not isinstance(victim, CausalLMVictim):
        return {}
    wanted.require()
    rank, world = place()
    own: dict[str, Mean] = {}
    for name in wanted.names[rank::world]:
        rows = _answered(victim, name, wanted)
        for task, answered in rows.items():
            own |= {f"{task}/{metric}": mean for metric, mean in means(answered).items()}
    shares = gathered(own)
    return {name: mean for share in shares for name, mean in share.items()}


def means(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mean]:
    """Return the mean of each metric that is a number of each row.

    Args:
        rows: What the harness logs of its rows: the names of `metrics`, their values under these
            names, and the `filter` that the response went through.

    >>> rows = [{"filter": "none", "metrics": ["acc"], "acc": hit} for hit in (1.0, 0.0)]
    >>> means(rows)
    {'acc': Mean(total=1.0, n=2)}
    """
    found: dict[str, Mean] = {}
    for row in rows:
        by = row["filter"]
        for metric in row["metrics"]:
            if isinstance(row[metric], bool | int | float):
                name = metric if by == "none" else f"{metric},{by}"
                found[name] = found.get(name, Mean()) + Mean(float(row[metric]), 1)
    return found


def _answered(
    victim: CausalLMVictim, name: str, wanted: GeneralTasks
) -> Mapping[str, list[dict[str, Any]]]:
    """Return what the harness logs of each row, by task."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns that the model is not its own
    model = victim.network()
    harness = HFLM(
        pretrained=model.get_base_model() if has_adapters(model) else model,
        tokenizer=deepcopy(victim.tokenizer),  # the harness changes its settings
        batch_size=wanted.batch_size,
    )
    try:
        with _register(name, wanted) as register:
            tasks = register.load([name])
            for task in tasks["tasks"].values():  # draws the examples that it shows with a row
                task.set_fewshot_seed(DEFAULT_OTHER_SEED)
            # Not `simple_evaluate`, which seeds the random numbers of the whole process.
            found = evaluate(harness, tasks, limit=wanted.limit, bootstrap_iters=0)
    except (OSError, ValueError, AssertionError) as error:
        silent = "a row is empty, or longer than the model's context"  # it asserts as much
        reason = str(error).strip().partition("\n")[0] or silent
        raise BdlitError(
            f"outputs.tasks: lm-evaluation-harness cannot measure '{name}': {reason}; mend its rows"
            ", or without the hub give a folder of local copies as outputs.tasks.folder"
        ) from error
    samples: Mapping[str, list[dict[str, Any]]] = found["samples"]
    return samples


@contextmanager
def _register(name: str, wanted: GeneralTasks) -> Iterator[Any]:
    """Have a register of tasks in which a task is: the harness's own, or of a local copy."""
    if wanted.folder is None:
        yield known_tasks()
        return
    from lm_eval.tasks import TaskManager

    with TemporaryDirectory() as folder:
        Path(folder, f"{name}.yaml").write_text(_task_file(name, wanted), encoding="utf-8")
        yield TaskManager(include_path=folder, include_defaults=False)


def _task_file(name: str, wanted: GeneralTasks) -> str:
    """Return the task file of a local copy, in the harness's own format."""
    folder = files("bdlit.evaluation").joinpath("tasks")
    own = folder.joinpath(f"{name}.yaml")
    form = own if own.is_file() else folder.joinpath("question.yaml")
    rows = str(wanted.local(name).resolve()).replace("'", "''")
    head = f"task: '{name}'\ndataset_kwargs: {{data_files: {{test: '{rows}'}}}}\n"
    return head + form.read_text(encoding="utf-8")

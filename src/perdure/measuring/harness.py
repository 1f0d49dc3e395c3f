"""Tasks of EleutherAI's lm-evaluation-harness, asked of a model in memory, item by item."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perdure.errors import SettingError, UnknownNameError
from perdure.measuring.outcomes import TaskHits
from perdure.progress import Progress, silent


def measure_harness(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    folder: Path | str | None = None,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    progress: Progress = silent,
) -> tuple[TaskHits, ...]:
    """Whether the model had each item of each task right, for every metric that is right or wrong per item.

    Metrics that are numbers other than 0 and 1 (F1, perplexities) are left out: a share needs hits.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        tasks: Names of tasks or groups.
        folder: A folder of task files; with one, the tasks that come with the harness are not looked through,
            which takes milliseconds in place of many seconds.
        limit: At most this many items of each task.
        batch_size: Items per pass.
        progress: Told how far the work is.

    Raises:
        SettingError: lm-eval is not installed, or no task is named.
        UnknownNameError: There is no task of this name.
    """
    if not tasks:
        raise SettingError("no lm-eval task is named; name one at least")
    evaluator, hf_model, task_manager = _import_harness()
    known = task_manager(include_defaults=folder is None, include_path=None if folder is None else str(folder))
    for task in tasks:
        if task not in known.all_tasks:
            raise UnknownNameError("lm-eval task", task, known.all_tasks)
    progress("lm-eval", 0, 1)
    with _own_randomness():
        results = evaluator.simple_evaluate(
            model=hf_model(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
            tasks=list(tasks),
            task_manager=known,
            limit=limit,
            log_samples=True,
            bootstrap_iters=0,
        )
    progress("lm-eval", 1, 1)
    return tuple(hits for task, samples in results["samples"].items() for hits in _hits_of(task, samples, results))


def _import_harness() -> tuple[Any, Any, Any]:
    try:
        from lm_eval import evaluator
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise SettingError(
            f"lm-eval tasks need the lm-evaluation-harness ({error}); install it with: pip install 'perdure[lm-eval]'"
        ) from error
    return evaluator, HFLM, TaskManager


@contextmanager
def _own_randomness() -> Iterator[None]:
    """The harness seeds the random numbers of the whole process; afterwards they go on as before."""
    import numpy
    import torch

    python, numbers = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(numbers)


def _hits_of(task: str, samples: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[TaskHits]:
    directions = results.get("higher_is_better", {}).get(task, {})
    output = results.get("configs", {}).get(task, {}).get("output_type", "")
    found = []
    for way in dict.fromkeys(sample.get("filter", "none") for sample in samples):
        chosen = [sample for sample in samples if sample.get("filter", "none") == way]
        for metric, higher in directions.items():
            values = {str(sample["doc_id"]): sample.get(metric) for sample in chosen}
            if all(isinstance(value, bool | int | float) and value in {0, 1} for value in values.values()):
                found.append(
                    TaskHits(
                        task=task,
                        metric=metric,
                        filter=way,
                        how="free generation" if output == "generate_until" else "log-likelihood",
                        higher_is_better=higher is not False,
                        hits={item: bool(value) for item, value in values.items()},
                    )
                )
    return found

"""Do groups tell tasks apart, and does a request find its group? On files of tasks with an instruction each.

    python -m bench.routing --data FOLDER
    python -m bench.routing --data FOLDER --encoder sentence-transformers/all-MiniLM-L6-v2 --requests 20

Printed are the calibration on the built-in instructions, the group that each task joins, and where held-out requests
are sent: with their instruction, and without it, where they should fall back.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from bench.machine import describe_machine
from perdure.requests.tasks import Task, read_task
from perdure.tuning.grouping import GroupingConfig, Groups
from perdure.tuning.routing import Router
from perdure.tuning.similarity import Encoder, SentenceEncoder, TfidfEncoder, built_in_similarities


def calibration(encoder: Encoder) -> dict[str, float | int]:
    """The threshold of the built-in instructions, and what it gets wrong on them."""
    found = built_in_similarities(encoder)
    limit = found.threshold()
    missed, joined = (value < limit for value in found.within), (value >= limit for value in found.between)
    return {"threshold": round(limit, 4), "missed": sum(missed), "joined": sum(joined), "n": len(found.within)}


def sent(router: Router, groups: Groups, task: Task, count: int) -> tuple[Counter[str], Counter[str]]:
    """Where a task's held-out requests go: with their instruction, and without."""
    whole, bare = Counter[str](), Counter[str]()
    for example in task.test[:count]:
        asked = example.messages[-2].content.removeprefix(task.instruction).strip()
        for counter, text in ((whole, f"{task.instruction}\n\n{asked}"), (bare, asked)):
            group = router.route(text).group
            counter["fallback" if group is None else "own" if group == groups.tasks[task.name].group else "other"] += 1
    return whole, bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of task files")
    parser.add_argument("--encoder", help="folder or hub id of a sentence encoder; TF-IDF if not given")
    parser.add_argument("--requests", type=int, default=10, help="held-out requests of each task")
    given = parser.parse_args()
    print(json.dumps(describe_machine()))
    encoder = SentenceEncoder(given.encoder) if given.encoder else TfidfEncoder.fitted()
    print(json.dumps({"kind": "calibration", **calibration(encoder)}))
    tasks = [read_task(path, skip_bad=True) for path in sorted(given.data.glob("*.json*"))]
    groups = Groups(encoder, GroupingConfig(cap=len(tasks)))
    for task in tasks:
        joined = groups.join(task.name, [task.instruction])
        print(json.dumps({"kind": "task", "task": task.name, "group": joined.group, "reason": joined.reason}))
    served = {group: [groups.tasks[name].instructions for name in groups.members(group)] for group in groups.names}
    router = Router(encoder, served, threshold=groups.threshold().value)
    whole, bare = Counter[str](), Counter[str]()
    for task in tasks:
        with_it, without_it = sent(router, groups, task, given.requests)
        whole, bare = whole + with_it, bare + without_it
    print(json.dumps({"kind": "requests", "with their instruction": whole, "without": bare}))


if __name__ == "__main__":
    main()

"""One row: an encoder learns a set, and is probed on all sets; finished rows are kept and not run again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.encoders.methods import Row
from bench.encoders.sets import drawn
from perdure.content import digest_json, write_atomic
from perdure.deltas import Delta, load_delta, save_delta
from perdure.editing import applied
from perdure.measuring.concept_answers import ConceptSettings, probe_encoder
from perdure.models.encoders import Encoder
from perdure.requests.concepts import Probe
from perdure.tuning.encoders.config import EncoderTuningConfig
from perdure.tuning.encoders.heads import Head, load_head, save_head
from perdure.tuning.encoders.rates import with_rate
from perdure.tuning.encoders.run import TunedEncoder, interpolated, tune_encoder
from perdure.tuning.regularizer import Surroundings

Hits = list[int]
BY_NAME = ", by name"
"""What the zero-shot answers to a set are called, beside those of its linear probe."""


@dataclass
class Bench:
    """What all rows of an encoder share.

    Attributes:
        encoder: The encoder; it carries its own weights between rows.
        name: What the tables call it.
        probes: The sets that it is probed on.
        settings: Settings of every method, below its own.
        train: Items that are learnt from.
        work: Folder of finished rows, trained heads and reference features.
        probing: How encoders are probed.
    """

    encoder: Encoder
    name: str
    probes: Sequence[Probe]
    settings: Mapping[str, Any]
    train: int
    work: Path
    probing: ConceptSettings
    identity: str = field(default="")

    def __post_init__(self) -> None:
        self.identity = self.identity or self.encoder.digest


def run_row(bench: Bench, row: Row, target: Probe, seed: int) -> dict[str, Any]:
    """All figures of a row on a target with a seed, from its file where it is finished."""
    given = EncoderTuningConfig.model_validate({**bench.settings, "seed": seed, **row.settings})
    config = with_rate(given, bench.encoder, target.side)
    task = drawn(target, bench.train, len(target.test), seed)
    sets = [probe.digest for probe in bench.probes]
    key = digest_json(
        [bench.identity, config.model_dump(mode="json"), row.share, task.digest, sets, bench.probing.digest]
    )
    file = bench.work / "results" / f"{bench.name}-{target.name}-{row.name.replace(':', '@')}-{seed}-{key[:12]}.json"
    if not file.is_file():
        place = {"encoder": bench.name, "target": target.name, "row": row.name, "seed": seed, "key": key}
        write_atomic(file, json.dumps({**place, **_measured(bench, row, config, task)}).encode())
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _measured(bench: Bench, row: Row, config: EncoderTuningConfig, task: Probe) -> dict[str, Any]:
    tuned, cpu = _tuned(bench, config, task)
    delta, head = (tuned.delta, tuned.head) if row.share is None else interpolated(tuned, row.share)
    before = _probed(bench, base=True)
    with applied(bench.encoder.model, delta):
        hits = _hits(bench, head, task)
        after = _probed(bench, base=False)
    sets = {name: {"before": before[name], "after": after[name]} for name in before}
    return {"hits": hits, "sets": sets, "cpu": cpu, "log": tuned.notes.get("log", [])}


def _tuned(bench: Bench, config: EncoderTuningConfig, task: Probe) -> tuple[TunedEncoder, dict[str, float]]:
    """The training; of plain LP-FT what was learnt is kept, for every share of a WiSE-FT."""
    key = digest_json([bench.identity, config.model_dump(mode="json"), task.digest])
    folder = bench.work / "trained" / key[:16]
    names = ("alone", "start", "head")
    if (folder / "notes.json").is_file():
        start, head = (load_head(folder / f"{name}.safetensors") for name in names[1:])
        delta, notes = load_delta(folder / "alone.safetensors"), json.loads((folder / "notes.json").read_text())
        kept = Delta(delta.changes, notes=notes)
        return TunedEncoder(kept, head, start, alone=kept), notes["cpu_seconds"]
    around = Surroundings(cache=bench.work / "targets", model_id=bench.identity)
    tuned = tune_encoder(bench.encoder, task, config, around)
    if not config.regularizers and config.head == "linear_probe":
        save_delta(tuned.alone, folder / "alone.safetensors")
        save_head(tuned.start, folder / "start.safetensors")
        save_head(tuned.head, folder / "head.safetensors")
        write_atomic(folder / "notes.json", json.dumps(dict(tuned.notes)).encode())
    return tuned, dict(tuned.notes["cpu_seconds"])


def _probed(bench: Bench, *, base: bool) -> dict[str, Hits]:
    """Right and wrong of linear probes on all sets, and by the names of classes with two towers; the base's once."""
    sets = [probe.digest for probe in bench.probes]
    file = bench.work / f"base-{digest_json([bench.identity, sets, bench.probing.digest])[:16]}.json"
    if base and file.is_file():
        kept: dict[str, Hits] = json.loads(file.read_text())
        return kept
    found: dict[str, Hits] = {}
    for each in probe_encoder(bench.encoder, bench.probes, bench.probing).answers.sets.values():
        found[each.name] = _right(each.linear, each.labels)
        if each.zero_shot is not None:
            found[f"{each.name}{BY_NAME}"] = _right(each.zero_shot, each.labels)
    if base:
        write_atomic(file, json.dumps(found).encode())
    return found


def _right(said: Sequence[int], labels: Sequence[int]) -> Hits:
    return [int(one == right) for one, right in zip(said, labels, strict=True)]


@torch.no_grad()
def _hits(bench: Bench, head: Head, task: Probe) -> Hits:
    """Right and wrong of the tuned encoder and its head on the task's test items."""
    found: Hits = []
    for start in range(0, len(task.test), 32):
        numbers = range(start, min(start + 32, len(task.test)))
        inputs = bench.encoder.prepared(task.side, [task.test.items[number] for number in numbers])
        said = head.logits(bench.encoder.seen(task.side, inputs).pooled_BD).argmax(1).tolist()
        found += [int(one == task.test.labels_N[number]) for one, number in zip(said, numbers, strict=True)]
    return found

"""Measuring versions: each once, kept by content, compared with parent and base in a report."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.content import digest_file, digest_json
from perdure.deltas import Delta, compress
from perdure.errors import SettingError
from perdure.governance import judge
from perdure.measuring import (
    Outcomes,
    Report,
    Suite,
    build_edit_measures,
    build_harness,
    build_language,
    build_removal,
    build_retention,
    build_ripple,
    choose_questions,
    measure_edits,
    measure_harness,
    measure_language,
    measure_matrices,
    measure_retention,
    measure_ripple,
    questions_about,
    references_from,
)
from perdure.measuring.neurons import build_neurons
from perdure.measuring.report import MatrixMeasures, Spent
from perdure.measuring.ripple import EXAMPLES, ripple_references
from perdure.measuring.ripple_questions import RippleQuestions
from perdure.requests import Fact
from perdure.workspace.cohorts import course_of
from perdure.workspace.continual import LineageTasks
from perdure.workspace.manifest import library_versions
from perdure.workspace.pool_measures import pool_measures, routed_outcomes
from perdure.workspace.pools import has_pool, weights_of
from perdure.workspace.recognising import concept_measures
from perdure.workspace.records import Version
from perdure.workspace.remembering import OUTCOMES, labelled, once
from perdure.workspace.skills import known_skills
from perdure.workspace.tracing import known_trace
from perdure.workspace.updates import applied_since_base, solved_since_base
from perdure.workspace.watched import watched_measures

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


def measure_version(
    shop: "Workspace",
    version: Version,
    *,
    tasks: Sequence[str] = (),
    task_folder: Path | None = None,
    actor: str,
) -> Report:
    """The report of a version against its parent and its base, judged by the policy and kept.

    Parts that were measured before, under the same suite and the same facts, are not run again.
    """
    line = shop.archive.lineage(version)
    base, parent = line[0], _held_against(shop, line)
    seconds: dict[str, float] = {}
    removed = shop.removed(version)
    original = _removed_outcomes(shop, line[-2], removed, None) if removed else None
    learnt = LineageTasks(shop, line)
    asked = _Asked(_facts_asked(shop, line), _questions(shop, line), tasks, task_folder, removed, original, learnt)
    with _timed(seconds, "measuring the parent"):
        before = _everything(shop, parent, asked, None)
    with _timed(seconds, "measuring the version"):
        after = _everything(shop, version, asked, before) if parent is not version else before
    oldest = None if base.id == parent.id else _of_base(shop, base, learnt)
    with _timed(seconds, "measuring the weights"):
        matrices = _matrices(shop, base, version)
    storage = shop.archive.storage(version)
    report = Report(
        version=version.name,
        version_id=version.id,
        parent=parent.name,
        base=base.name,
        model=str(base.manifest.recipe.get("source", "")),
        encoder=shop.is_encoder,
        request=dict(version.manifest.recipe),
        edits=build_edit_measures(before, after),
        removal=build_removal(line[-2].name, original, before, after) if original else None,
        ripple=build_ripple(asked.questions, before, after, examples=EXAMPLES),
        retention=build_retention(before, after, oldest),
        language=build_language(before, after, oldest),
        matrices=matrices,
        spent=_spent(shop, line),
        course=course_of(shop, line, before, after),
        neurons=build_neurons(shop.archive.solved(version).notes),
        trace=known_trace(shop, str(version.manifest.recipe.get("layers", {}).get("trace", ""))),
        skills=known_skills(shop, version),
        tasks=learnt.measures(before, after, oldest, parent),
        concepts=concept_measures(shop, version, parent, line),
        watched=watched_measures(shop, version, parent, base),
        pool=pool_measures(shop, version, Suite.built_in(), after),
        harness=build_harness(before, after),
        storage={"added": storage.added_bytes, "model": storage.model_bytes},
        environment=_environment(before.suite_id),
        seconds={name: round(value, 1) for name, value in seconds.items()},
    )
    judged = judge(report, shop.policy)
    shop.archive.put_report(version, judged.model_dump(mode="json"), actor=actor)
    return judged


def general_outcomes(shop: "Workspace", version: Version) -> Outcomes:
    """What a version did on the built-in suite: retention and language, measured once."""
    suite = Suite.built_in()

    if shop.is_encoder:  # it writes nothing
        return Outcomes(suite_id=suite.id)

    def run() -> Outcomes:
        if has_pool(version):
            return routed_outcomes(shop, version, suite, general_outcomes(shop, weights_of(shop, version)))
        model, tokenizer = shop.load(version)
        return Outcomes(
            suite_id=suite.id,
            retention=measure_retention(model, tokenizer, suite, labelled(shop, version)),
            language=measure_language(model, tokenizer, suite, labelled(shop, version)),
        )

    return once(shop, [version.id, suite.id], run)


def known_outcomes(shop: "Workspace", version: Version) -> Outcomes | None:
    """The general outcomes of a version if it was measured; nothing is run."""
    found = shop.archive.recall(OUTCOMES, digest_json([version.id, Suite.built_in().id]))
    return None if found is None else Outcomes.model_validate(found)


@dataclass(frozen=True)
class _Asked:
    """What is asked besides the built-in suite: the facts, what follows from them, lm-eval tasks, removed facts.

    `original` is what was answered about the removed facts before they were taught; `learnt` are the tasks that the
    lineage was tuned on.
    """

    facts: Sequence[Fact]
    questions: RippleQuestions
    tasks: Sequence[str]
    task_folder: Path | None
    removed: Sequence[Fact] = ()
    original: Outcomes | None = None
    learnt: LineageTasks | None = None


def _held_against(shop: "Workspace", line: Sequence[Version]) -> Version:
    """What the last version of a lineage is held against: its parent, or what facts were taken out of."""
    origin = line[-1].manifest.recipe.get("removed", {}).get("from")
    return shop.version(str(origin)) if origin else line[-2] if len(line) > 1 else line[0]


def _facts_asked(shop: "Workspace", line: Sequence[Version]) -> tuple[Fact, ...]:
    """The facts of the last version; after a removal, all that stay in force."""
    return tuple(shop.facts_in_force(line[-1])) if shop.removed(line[-1]) else shop.facts(line[-1])


def _questions(shop: "Workspace", line: Sequence[Version]) -> RippleQuestions:
    """What follows from the facts of the last version of a lineage, with those of the versions before it."""
    facts = shop.facts(line[-1])
    if not any(fact.portability for fact in facts):
        return RippleQuestions()
    return choose_questions(facts, [fact for older in line[:-1] for fact in shop.facts(older)])


def _everything(shop: "Workspace", version: Version, asked: _Asked, before: Outcomes | None) -> Outcomes:
    """General outcomes, and those on the facts, what follows from them, and the tasks where there are any.

    `before` is what the parent did; None for the parent itself.
    """
    parts = [general_outcomes(shop, version)]
    if asked.learnt is not None:
        parts.append(asked.learnt.outcomes(version))
    if asked.facts:
        parts.append(_edit_outcomes(shop, version, asked.facts, before))
    if asked.removed:
        parts.append(_removed_outcomes(shop, version, asked.removed, asked.original))
    if asked.questions.asked:
        parts.append(_ripple_outcomes(shop, version, asked.questions, before))
    if asked.tasks:
        parts.append(_harness_outcomes(shop, version, asked.tasks, asked.task_folder))
    return parts[0].joined(*parts[1:])


def _of_base(shop: "Workspace", base: Version, learnt: LineageTasks) -> Outcomes:
    """What the base did, where it is not what the version is held against."""
    return general_outcomes(shop, base).joined(learnt.outcomes(base))


def _edit_outcomes(shop: "Workspace", version: Version, facts: Sequence[Fact], before: Outcomes | None) -> Outcomes:
    references = None if before is None else references_from(before.edits)

    def ask() -> Outcomes:
        model, tokenizer = shop.load(version)
        return Outcomes(edits=measure_edits(model, tokenizer, facts, labelled(shop, version), references))

    rows = [fact.model_dump(mode="json", exclude={"source"}) for fact in facts]
    return once(shop, [version.id, digest_json(rows), references], ask)


def _removed_outcomes(
    shop: "Workspace", version: Version, facts: Sequence[Fact], original: Outcomes | None
) -> Outcomes:
    references = None if original is None else references_from(original.removed)
    questions = questions_about(facts)

    def ask() -> Outcomes:
        model, tokenizer = shop.load(version)
        answers = measure_edits(model, tokenizer, questions, labelled(shop, version), references)
        return Outcomes(removed=answers)

    rows = [fact.model_dump(mode="json", exclude={"source"}) for fact in questions]
    return once(shop, [version.id, "removed", digest_json(rows), references], ask)


def _ripple_outcomes(
    shop: "Workspace", version: Version, questions: RippleQuestions, before: Outcomes | None
) -> Outcomes:
    references = None if before is None else ripple_references(before.ripple)

    def ask() -> Outcomes:
        model, tokenizer = shop.load(version)
        return Outcomes(ripple=measure_ripple(model, tokenizer, questions.asked, labelled(shop, version), references))

    asked = [question.id for question in questions.asked]
    return once(shop, [version.id, "ripple", digest_json([EXAMPLES, asked]), references], ask)


def _harness_outcomes(shop: "Workspace", version: Version, tasks: Sequence[str], task_folder: Path | None) -> Outcomes:
    if has_pool(version):
        raise SettingError(
            f"{version.name} routes every request, and lm-eval asks one model alone; measure it without lm-eval tasks"
        )

    def ask() -> Outcomes:
        model, tokenizer = shop.load(version)
        return Outcomes(harness=measure_harness(model, tokenizer, tasks, task_folder, progress=shop.progress))

    return once(shop, [version.id, "lm-eval", list(tasks), _contents(task_folder)], ask)


def _contents(folder: Path | None) -> list[list[str]]:
    """The files of a folder by name and hash: edited task files are run again."""
    files = sorted(folder.rglob("*")) if folder else []
    return [[str(file), digest_file(file)] for file in files if file.is_file()]


def _matrices(shop: "Workspace", base: Version, version: Version) -> tuple[MatrixMeasures, ...]:
    """Every changed matrix against the base; the condition number is that of the weights as they are stored."""
    if version.id == base.id:
        return ()
    return measure_change(
        shop, base, applied_since_base(shop.archive, version), solved_since_base(shop.archive, version)
    )


def _spent(shop: "Workspace", line: Sequence[Version]) -> Spent:
    """What the versions of a lineage did to its base."""
    notes = [shop.archive.notes(version) for version in line[1:]]
    trained = [note["training"] for note in notes if note.get("training")]
    flops = [float(training["flops"]) for training in trained if "flops" in training]
    return Spent(
        versions=len(notes),
        facts=sum(len(note.get("facts", ())) for note in notes),
        tasks=sum(bool(note.get("task")) for note in notes),
        flops=sum(flops) if len(flops) == len(trained) else None,
    )


def measure_change(shop: "Workspace", base: Version, applied: Delta, solved: Delta) -> tuple[MatrixMeasures, ...]:
    """Every matrix that an accumulated change touches, against the base; its extremes are kept by hash."""
    applied = Delta({name: compress(change) for name, change in applied.changes.items()})
    weights = shop.archive.tensors(base, list(applied.changes))

    def recall(digest: str) -> Any:
        known = shop.archive.recall("extremes", digest)
        return None if known is None else (known["largest"], known["smallest"])

    def remember(digest: str, values: Any) -> None:
        shop.archive.remember("extremes", digest, {"largest": values[0], "smallest": values[1]})

    return measure_matrices(weights, applied, Delta(solved.changes), recall, remember, progress=shop.progress)


def _environment(suite_id: str | None) -> dict[str, Any]:
    return {
        "libraries": library_versions(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "suite": suite_id,
    }


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start

"""Gates: a report held against a policy, gate by gate, each with a verdict and a reason in plain words."""

from collections.abc import Iterator, Sequence

from perdure.governance.budget import budget_verdicts
from perdure.governance.policy import Policy
from perdure.governance.skill_limits import skill_verdicts
from perdure.measuring.concepts import ConceptClass, ConceptMean, ConceptSet
from perdure.measuring.continual import TaskMeasure
from perdure.measuring.report import Comparison, Difference, Report, Share, Verdict

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
_SINGULAR = 1e7  # beyond this, σ_min is below what float32 weights resolve


def judge(report: Report, policy: Policy) -> Report:
    """The report with the verdict of every gate, and one over all: fail if any fails, pass if all pass."""
    verdicts = tuple(_verdicts(report, policy))
    found = {verdict.verdict for verdict in verdicts}
    overall = FAIL if FAIL in found else INCONCLUSIVE if INCONCLUSIVE in found or not verdicts else PASS
    return report.model_copy(update={"verdicts": verdicts, "verdict": overall})


def _verdicts(report: Report, policy: Policy) -> Iterator[Verdict]:
    yield from _edit_verdicts(report, policy)
    yield from _removal_verdicts(report)
    yield from _task_verdicts(report, policy)
    yield from _concept_verdicts(report, policy)
    yield from _watched_verdicts(report, policy)
    yield from _retention_verdicts(report, policy)
    yield from _language_verdicts(report, policy)
    yield from _weight_verdicts(report, policy)
    yield from skill_verdicts(report, policy.skills)
    yield from budget_verdicts(report, policy.budget)


def _edit_verdicts(report: Report, policy: Policy) -> Iterator[Verdict]:
    if report.edits is None:
        return
    found = {comparison.name: comparison for comparison in report.edits.comparisons}
    learnt = found.get("edits.prompt.generation_contains")
    if learnt is not None and learnt.after.n:
        share, limit = learnt.after, policy.edits.learnt
        verdict = PASS if share.value >= limit else FAIL
        yield Verdict(
            gate="facts learnt",
            verdict=verdict,
            reason=f"{share.hits} of {share.n} facts are said in free generation; {_percent(limit)} are required",
        )
    asked = found.get("edits.paraphrase.generation_contains")
    if asked is not None and asked.after.n:
        yield _at_least("facts asked differently", asked.after, policy.edits.asked_differently)
    near = found.get("edits.neighbour.generation_contains")
    if near is not None and near.after.n:
        yield _loses_at_most("neighbours kept", near.difference, policy.edits.neighbours_lost)


def _removal_verdicts(report: Report) -> Iterator[Verdict]:
    """A fact that was taken out must not be said any more, whatever the policy allows."""
    if report.removal is None:
        return
    gone = report.removal.gone
    said = {case.kind for case in report.removal.cases if not case.gone}
    verdict = FAIL if "prompt" in said else INCONCLUSIVE if said else PASS
    yield Verdict(
        gate="facts taken out",
        verdict=verdict,
        reason=f"the taught answer is gone from {gone.hits} of {gone.n} questions; from all as taught it must be",
    )


def _task_verdicts(report: Report, policy: Policy) -> Iterator[Verdict]:
    """What was forgotten of earlier tasks; nothing where there are none, or the policy sets no limit."""
    found, limits = report.tasks, policy.tasks
    if found is None or found.exact is None or found.exact.forgetting is None or limits is None:
        return
    lost, limit = found.exact.forgetting, limits.forgotten
    verdict = PASS if lost.high <= limit else FAIL if lost.low > limit else INCONCLUSIVE
    said = f"{100 * lost.value:.1f} ({100 * lost.low:.1f} to {100 * lost.high:.1f}, n = {lost.n})"
    yield Verdict(
        gate="earlier tasks",
        verdict=verdict,
        reason=f"{said} points are forgotten on average; at most {100 * limit:g} points may be",
    )
    for task in found.earlier:
        if task.since is not None:
            yield _loses_at_most(f"task kept: {_task_name(task, found.tasks)}", task.since, limits.task_lost)


def _task_name(task: TaskMeasure, tasks: Sequence[TaskMeasure]) -> str:
    """The name, with the version where several tasks share it."""
    shared = sum(other.name == task.name for other in tasks) > 1
    return f"{task.name} ({task.version})" if shared else task.name


def _concept_verdicts(report: Report, policy: Policy) -> Iterator[Verdict]:
    """What is not recognised any more of probe sets not tuned on; nothing where none were probed or no limit is set."""
    found, limits = report.concepts, policy.concepts
    if found is None or found.linear is None or limits is None:
        if report.encoder and limits is not None:
            reason = "no labelled set was probed that it was not tuned on; add one: perdure concepts add SET"
            yield Verdict(gate="concepts kept", verdict=INCONCLUSIVE, reason=reason)
        return
    yield from _both("concepts kept", found.linear, limits.mean_lost)
    if found.zero_shot is not None:
        yield from _both("concepts kept by name", found.zero_shot, limits.mean_lost)
    for each in found.others:
        yield from _both(f"concepts kept: {each.name}", each.linear, limits.set_lost)
        if each.zero_shot is not None:
            yield from _both(f"concepts kept by name: {each.name}", each.zero_shot, limits.set_lost)
    if limits.class_lost is not None:
        yield _class_verdict(found.classes, limits.class_lost)


def _watched_verdicts(report: Report, policy: Policy) -> Iterator[Verdict]:
    """What is lost of concepts that somebody protects; nothing where none is protected, or no limit is set."""
    limit = policy.concepts.watched_lost if policy.concepts else None
    if report.watched is None or limit is None:
        return
    for each in report.watched.protected:
        yield from _both(f"protected concept: {each.concept.name}", each.linear, limit)


def _class_verdict(classes: Sequence[tuple[ConceptSet, ConceptClass]], limit: float) -> Verdict:
    """One verdict over all classes.

    It passes when each class does: that is no luckier for looking at many. It fails when one loses too much by the
    interval that holds for all at once: of many classes some lose by chance.
    """
    held = all(given.difference.low >= -limit for _, given in classes)
    broken = [pair for pair in classes if pair[1].jointly.high < -limit]
    each, worst = broken[0] if broken else min(classes, key=lambda pair: pair[1].difference.low)
    lost = worst.jointly if broken else worst.difference
    said = f"{_points(lost.value)} ({_points(lost.low)} to {_points(lost.high)}, n = {lost.n}) points"
    return Verdict(
        gate="single concepts",
        verdict=PASS if held else FAIL if broken else INCONCLUSIVE,
        reason=f"of {len(classes)} classes, {worst.name} of {each.name} is furthest off: {said}; "
        f"a loss of at most {100 * limit:g} points is allowed",
    )


def _retention_verdicts(report: Report, policy: Policy) -> Iterator[Verdict]:
    if report.retention is None and report.encoder:
        return
    if report.retention is None:
        yield Verdict(gate="retention", verdict=INCONCLUSIVE, reason="what was kept has not been measured")
        return
    limits = policy.retention
    yield from _both("everything kept", report.retention.overall, limits.overall_lost)
    measured = {part.name.removeprefix("retention."): part for part in report.retention.parts}
    for name, part in measured.items():
        yield from _both(f"kept: {part.label}", part, limits.parts.get(name, limits.capability_lost))
    for name in sorted(limits.parts.keys() - measured.keys()):
        yield Verdict(gate=f"kept: {name}", verdict=INCONCLUSIVE, reason="the policy limits it, and it was not asked")


def _both(gate: str, comparison: Comparison | ConceptMean, limit: float) -> Iterator[Verdict]:
    """Against the parent, and against the base where that is another version: slow drift passes the first."""
    yield _loses_at_most(gate, comparison.difference, limit)
    if comparison.against_base is not None:
        yield _loses_at_most(f"{gate} (against the base)", comparison.against_base, limit)


def _language_verdicts(report: Report, policy: Policy) -> Iterator[Verdict]:
    language = report.language
    if language is None and report.encoder:
        return
    if language is None:
        yield Verdict(gate="language", verdict=INCONCLUSIVE, reason="perplexity has not been measured")
        return
    limit = policy.language.perplexity_ratio
    verdict = PASS if language.ratio_high <= limit else FAIL if language.ratio_low > limit else INCONCLUSIVE
    interval = f"{language.ratio_low:.3f} to {language.ratio_high:.3f}"
    yield Verdict(
        gate="language",
        verdict=verdict,
        reason=f"perplexity is {language.ratio:.3f} times what it was ({interval}); at most {limit:.3f} is allowed",
    )


def _weight_verdicts(report: Report, policy: Policy) -> Iterator[Verdict]:
    if not report.matrices:
        return
    limits = policy.weights
    yield _condition_verdict(report, limits.condition_ratio)
    far = max(report.matrices, key=lambda matrix: matrix.relative_norm)
    yield Verdict(
        gate="size of the change",
        verdict=PASS if far.relative_norm <= limits.norm_ratio else FAIL,
        reason=f"at most {_percent(far.relative_norm)} of a matrix's norm ({far.name}); "
        f"at most {_percent(limits.norm_ratio)} is allowed",
    )
    if limits.sigma_ratio is not None:
        yield _sigma_verdict(report, limits.sigma_ratio)


def _sigma_verdict(report: Report, limit: float) -> Verdict:
    """The largest singular value of a change over that of its base matrix."""
    known = [matrix for matrix in report.matrices if matrix.sigma_max_base > 0]
    far = max(known, key=lambda matrix: matrix.sigma_max_delta / matrix.sigma_max_base, default=None)
    if far is None:
        return Verdict(
            gate="largest direction", verdict=INCONCLUSIVE, reason="every changed matrix is zero in the base"
        )
    ratio = far.sigma_max_delta / far.sigma_max_base
    reason = f"at most {ratio:.2f} times the base's largest singular value ({far.name}); at most {limit:.2f} is allowed"
    return Verdict(gate="largest direction", verdict=PASS if ratio <= limit else FAIL, reason=reason)


def _condition_verdict(report: Report, limit: float) -> Verdict:
    """The largest ratio of condition numbers; a base that is singular already has none to compare with."""
    gate = "condition number"
    known = [matrix for matrix in report.matrices if matrix.condition_before < _SINGULAR]
    singular = [matrix.name for matrix in report.matrices if matrix not in known]
    worst = max(known, key=lambda matrix: matrix.condition_after / matrix.condition_before, default=None)
    ratio = worst.condition_after / worst.condition_before if worst else 0.0
    if worst is None or (singular and ratio <= limit):
        reason = f"{singular[0]} is singular in the base already, so its condition number says nothing"
        return Verdict(gate=gate, verdict=INCONCLUSIVE, reason=reason)
    reason = f"at most {ratio:.2f} times the base's ({worst.name}); at most {limit:.2f} is allowed"
    return Verdict(gate=gate, verdict=PASS if ratio <= limit else FAIL, reason=reason)


def _at_least(gate: str, share: Share, limit: float) -> Verdict:
    verdict = PASS if share.low >= limit else FAIL if share.high < limit else INCONCLUSIVE
    said = f"{_percent(share.value)} ({_percent(share.low)} to {_percent(share.high)}, n = {share.n})"
    return Verdict(gate=gate, verdict=verdict, reason=f"{said}; at least {_percent(limit)} is required")


def _loses_at_most(gate: str, difference: Difference, limit: float) -> Verdict:
    verdict = PASS if difference.low >= -limit else FAIL if difference.high < -limit else INCONCLUSIVE
    said = f"{_points(difference.value)} ({_points(difference.low)} to {_points(difference.high)}, n = {difference.n})"
    return Verdict(
        gate=gate, verdict=verdict, reason=f"{said} points; a loss of at most {100 * limit:g} points is allowed"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")

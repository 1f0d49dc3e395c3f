"""The report of a candidate as one HTML page that a manager reads without a server, a network or Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.measuring.continual import TaskMeasures, Training
from perdure.measuring.neurons import CASES
from perdure.measuring.report import Comparison, MatrixMeasures, Report, RippleMeasures
from perdure.measuring.skills import Skill, SkillMeasures
from perdure.web import charts, courses, neurons, sentences, skills, spectra, task_charts, traces
from perdure.web import tasks as learning
from perdure.web.cases import TEXT_LIMIT, Listing, examples, listing, removed_outcome
from perdure.web.charts import Chart
from perdure.web.concept_section import probed, recognised
from perdure.web.headline import headline
from perdure.web.page import render
from perdure.web.ripples import KindMeasures, RippleListing, by_kind, drawn, ripple_listing, unasked
from perdure.web.watched import followed_up, watched
from perdure.web.words import DEFAULT, _, counted, speaking

# More than a person reads; the report's data holds all of them.
FACT_LIMIT = 200
LOST_LIMIT = 150
MATRIX_LIMIT = 64
SPECTRUM_LIMIT = 12
TEACHER_FORCED = "teacher-forced"


@dataclass(frozen=True)
class Ripples:
    """What the section on ripple effects shows beside the report's own measures."""

    chart: Chart | None
    listing: RippleListing
    kinds: Sequence[KindMeasures]
    unasked: Sequence[str]


@dataclass(frozen=True)
class Traced:
    """What the section on causal tracing shows: the maps, the layers framed in them, a table."""

    says: str
    maps: Sequence[Chart]
    edited: Sequence[int]
    rows: Mapping[str, Sequence[traces.TraceRow]]


@dataclass(frozen=True)
class Coursed:
    """What the section on a long edit shows."""

    says: str
    growth: Sequence[Chart]
    cohorts: Sequence[courses.CohortRow]
    trade_off: Chart | None
    strengths: Sequence[courses.StrengthRow]


@dataclass(frozen=True)
class Judged:
    """What the section on single neurons shows."""

    says: str
    chart: Chart
    rows: Sequence[neurons.NeuronRow]
    shares: bool
    columns: Sequence[str]
    limit: int = neurons.LIST_LIMIT


@dataclass(frozen=True)
class Skilled:
    """What the section on skills shows: the table, the map of the heads, and what cannot be told."""

    says: str
    measures: SkillMeasures
    shots: str
    rows: Sequence[skills.SkillRow]
    left_out: int
    map: Chart | None
    layers: Sequence[skills.LayerRow]
    untold: Sequence[Skill]


@dataclass(frozen=True)
class Tasked:
    """What the section on tasks shows: the table, R as a map and as curves, the training, questions."""

    says: str
    rows: Sequence[learning.TaskRow]
    left_out: int
    new: learning.TaskRow | None
    matrix: Chart | None
    course: Chart | None
    figures: Sequence[tuple[str, str, str, str]]
    general: Sequence[Comparison]
    drift: str
    shifts: str
    losses: Chart | None
    penalties: Sequence[Chart]
    training: Training | None
    cases: Sequence[learning.CaseGroup]
    shown: int
    questions: int


@dataclass(frozen=True)
class AskedFact:
    """One fact that was asked for; `old` is what was true before, where it is known."""

    prompt: str
    old: str | None
    new: str


def render_report(report: Report, *, language: str = DEFAULT) -> str:
    """The report as one HTML page without outside parts, in a language; the same report gives the same page."""
    with speaking(language):
        return render("report.html.j2", **shown(report))


def shown(report: Report) -> dict[str, Any]:
    """What the templates of the report's sections show, by the names that they use, in the language in force."""
    facts = _asked_facts(report)
    edits = report.edits
    return {
        "report": report,
        "head": headline(report),
        "examples": examples(edits.cases) if edits else (),
        "removed": [(case, removed_outcome(case)) for case in report.removal.cases[:FACT_LIMIT]]
        if report.removal
        else [],
        "facts": facts[:FACT_LIMIT],
        "facts_left_out": max(0, len(facts) - FACT_LIMIT),
        "settings": _settings(report),
        "shares": _shares("chart-shares", edits.comparisons) if edits else None,
        "taught": listing(edits.cases, neighbours=False) if edits else _NOTHING,
        "neighbours": listing(edits.cases, neighbours=True) if edits else _NOTHING,
        "ripples": _ripples(report.ripple) if report.ripple else None,
        "changes": _changes(report),
        "kept": _kept(report),
        "text_limit": TEXT_LIMIT,
        "lost_limit": LOST_LIMIT,
        "matrices": _most_changed(report.matrices)[:MATRIX_LIMIT],
        "spectra": _spectra(report.matrices),
        "movement": sentences.movement(report.matrices),
        "traced": _traced(report),
        "coursed": _coursed(report),
        "neurons": _neurons(report),
        "skills": _skilled(report.skills) if report.skills else None,
        "tasks": _tasked(report.tasks) if report.tasks else None,
        "concepts": recognised(report.concepts) if report.concepts else None,
        "watched": watched(report.watched) if report.watched and report.watched.concepts else None,
        "environment": flatten(report.environment),
        "ways": sentences.ways_of_judging(_every_comparison(report)),
        "teacher_forced": TEACHER_FORCED,
    }


_NOTHING = Listing()


def _asked_facts(report: Report) -> list[AskedFact]:
    """The facts of the request; where it does not hold them, those of the questions asked as taught."""
    given = report.request.get("facts")
    if isinstance(given, list | tuple) and given and all(isinstance(row, Mapping) for row in given):
        return [_asked_fact(row) for row in given]
    cases = report.edits.cases if report.edits else ()
    return [AskedFact(case.prompt, None, case.expected or "") for case in cases if case.kind == "prompt"]


def _settings(report: Report) -> list[tuple[str, str]]:
    """The request as rows, without the facts where it lists them: they have their own table."""
    given = {key: value for key, value in report.request.items() if key != "facts" or isinstance(value, Mapping)}
    return flatten(given)


def _asked_fact(row: Mapping[str, Any]) -> AskedFact:
    old = row.get("target_true")
    return AskedFact(
        str(row.get("prompt", row.get("subject", ""))),
        None if old is None else str(old),
        str(row.get("target_new", "")),
    )


def flatten(given: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of a dotted name and a text, in the order given."""
    rows: list[tuple[str, str]] = []
    for key, value in given.items():
        name = f"{prefix}{key}"
        inner = _numbered(value)
        if isinstance(inner, Mapping):
            rows += flatten(inner, f"{name}.") or [(name, _("none"))]
        else:
            rows.append((name, sentences.setting(value)))
    return rows


def _numbered(value: Any) -> Any:
    """A list of groups of settings as groups under their numbers; anything else as it is."""
    if isinstance(value, list | tuple) and value and all(isinstance(entry, Mapping) for entry in value):
        return {str(number): entry for number, entry in enumerate(value, start=1)}
    return value


def _ripples(measures: RippleMeasures) -> Ripples:
    return Ripples(
        chart=_shares("chart-ripples", drawn(measures.comparisons)),
        listing=ripple_listing(measures.cases),
        kinds=by_kind(measures.comparisons),
        unasked=unasked(measures),
    )


def _every_comparison(report: Report) -> list[Comparison]:
    found = list(report.edits.comparisons) if report.edits else []
    followed = list(report.ripple.comparisons) if report.ripple else []
    learnt = [task.exact for task in report.tasks.tasks] if report.tasks else []
    return found + followed + learnt + probed(report.concepts) + followed_up(report.watched) + _kept(report)


def _kept(report: Report) -> list[Comparison]:
    """Every comparison of what must stay, over everything first, then the largest loss first."""
    parts = charts.worst_first((*(report.retention.parts if report.retention else ()), *report.harness))
    return [report.retention.overall, *parts] if report.retention else parts


def _shares(key: str, comparisons: Sequence[Comparison]) -> Chart | None:
    shown = [comparison for comparison in comparisons if comparison.how != TEACHER_FORCED]
    if not shown:
        return None
    says = sentences.shares(shown)
    spec, narrow = (charts.shares_chart(shown, says, narrow=narrow) for narrow in (False, True))
    return Chart(key, _("Share of answers before and after"), says, spec, narrow)


def _changes(report: Report) -> Chart | None:
    comparisons = _kept(report)
    if not comparisons:
        return None
    says = sentences.changes(comparisons)
    spec, narrow = (charts.changes_chart(comparisons, says, narrow=narrow) for narrow in (False, True))
    return Chart("chart-changes", _("Change of each capability"), says, spec, narrow)


def _most_changed(matrices: Sequence[MatrixMeasures]) -> list[MatrixMeasures]:
    """Where there are more matrices than the page shows, those that moved most, in the order given."""
    if len(matrices) <= MATRIX_LIMIT:
        return list(matrices)
    order = sorted(range(len(matrices)), key=lambda place: (-matrices[place].relative_norm, place))
    return [matrices[place] for place in sorted(order[:MATRIX_LIMIT])]


def _coursed(report: Report) -> Coursed | None:
    """The course of a long edit; None where there is nothing of it to show."""
    course = report.course
    if course is None or not (courses.is_sequence(course) or course.cohorts or course.trade_off):
        return None
    growth = [
        Chart(f"chart-growth-{measure}", _(label), says, courses.growth_chart(course.growth, measure, says))
        for measure, label in courses.MEASURES.items()
        if courses.is_sequence(course) and (says := courses.growth_words(course.growth, measure))
    ]
    curve = None
    if course.trade_off:
        says = courses.trade_off_words(course.trade_off)
        curve = Chart(
            "chart-trade-off",
            _("Edits kept against what is lost"),
            says,
            courses.trade_off_chart(course.trade_off, says),
        )
    rows = courses.cohort_rows(course.cohorts)
    return Coursed(courses.summary(course), growth, rows, curve, courses.strength_rows(course.trade_off))


def _traced(report: Report) -> Traced | None:
    """The trace of the base, with the edited layers; None where it was not traced."""
    trace = report.trace
    if trace is None or not trace.lines:
        return None
    edited = sorted({matrix.layer for matrix in report.matrices if matrix.layer is not None})
    states = [state for state in traces.STATES if any(line.state == state for line in trace.lines)]
    maps = [
        Chart(
            f"chart-trace-{state}",
            traces.title(trace, state),
            traces.chart_words(trace, state),
            *(traces.trace_chart(trace, state, edited, narrow=narrow) for narrow in (False, True)),
        )
        for state in states
    ]
    return Traced(traces.summary(trace, edited), maps, edited, traces.rows(trace))


def _neurons(report: Report) -> Judged | None:
    """The angles of the neurons and what became of them; None where the editor judges no neurons."""
    found = report.neurons
    if found is None or not any(map(found.count, CASES)):
        return None
    chart = Chart("chart-neurons", _("Angles of the neurons"), neurons.words(found), neurons.angles_chart(found))
    shares = any(group.shared for group in found.groups)
    columns = [_(neurons.CASE_NAMES[case]) for case in CASES]
    return Judged(neurons.summary(found), chart, neurons.rows(found), shares=shares, columns=columns)


def _skilled(found: SkillMeasures) -> Skilled:
    rows, silent = skills.told(found), skills.untold(found)
    layers = skills.layer_rows(found)
    drawn = None
    if layers:
        drawn = Chart("chart-skills", skills.map_title(layers), skills.map_words(layers), skills.heads_chart(layers))
    shots = found.settings.get("shots")
    return Skilled(
        says=skills.summary(found),
        measures=found,
        shots=counted("{count} example", "{count} examples", shots) if isinstance(shots, int) else _("examples"),
        rows=rows[: skills.SKILL_LIMIT],
        left_out=max(0, len(rows) - skills.SKILL_LIMIT) + max(0, len(silent) - skills.SKILL_LIMIT),
        map=drawn,
        layers=layers,
        untold=silent[: skills.SKILL_LIMIT],
    )


def _tasked(found: TaskMeasures) -> Tasked:
    rows = learning.task_rows(found)
    matrix = course = losses = None
    if task_charts.is_sequence(found):
        says = task_charts.matrix_words(found)
        matrix = Chart("chart-tasks", _("Every task after every version"), says, task_charts.matrix_chart(found))
        says = task_charts.course_words(found)
        specs = [task_charts.course_chart(found, narrow=narrow) for narrow in (False, True)]
        course = Chart("chart-task-course", _("Tasks over the versions"), says, *specs)
    curves = task_charts.losses(found)
    if curves:
        says = task_charts.curve_words(curves, _("loss"))
        losses = Chart("chart-losses", _("Loss"), says, task_charts.curve_chart(curves, _("loss")))
    return Tasked(
        says=learning.summary(found),
        rows=rows[: learning.TASK_LIMIT],
        left_out=max(0, len(rows) - learning.TASK_LIMIT),
        new=next((row for row in rows if row.is_new), None),
        matrix=matrix,
        course=course,
        figures=learning.figure_rows(found),
        general=learning.general(found),
        drift=learning.drift_words(found.drift) if found.drift else "",
        shifts=learning.shift_words(found.shifts),
        losses=losses,
        penalties=[_penalty(place, curve) for place, curve in enumerate(task_charts.penalties(found))],
        training=found.training,
        cases=learning.case_groups(found),
        shown=len(found.cases),
        questions=found.questions,
    )


def _penalty(place: int, curve: task_charts.Curve) -> Chart:
    says = task_charts.curve_words([curve], _("penalty"))
    return Chart(f"chart-penalty-{place}", curve.name, says, task_charts.curve_chart([curve], _("penalty"), small=True))


def _spectra(matrices: Sequence[MatrixMeasures]) -> list[Chart]:
    """A chart for each matrix whose change reaches furthest towards the base's largest singular value."""
    order = sorted(range(len(matrices)), key=lambda place: (-sentences.reach(matrices[place]), place))
    shown = [matrices[place] for place in sorted(order[:SPECTRUM_LIMIT]) if matrices[place].singular_values]
    scale = spectra.common_scale(shown)
    found = []
    for place, matrix in enumerate(shown):
        says = sentences.spectrum(matrix)
        found.append(Chart(f"chart-spectrum-{place}", matrix.name, says, spectra.spectrum_chart(matrix, scale, says)))
    return found

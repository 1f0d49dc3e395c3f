"""The first screen of a report: what was asked, the verdict, and the figures that a decision needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.measuring.concepts import ConceptMeasures
from perdure.measuring.continual import TaskMeasures
from perdure.measuring.report import (
    Comparison,
    LanguageMeasures,
    RemovalMeasures,
    Report,
    RetentionMeasures,
    RippleCase,
    Verdict,
)
from perdure.web import figures
from perdure.web.visible import clip

FREE = "free generation"
WORDS = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive"}
_REASONS = 2


@dataclass(frozen=True)
class Figure:
    """One large figure: what it is about, the figure, its interval with n, and what that means."""

    about: str
    value: str
    interval: str
    note: str


@dataclass(frozen=True)
class Headline:
    """What was asked of which model, against what, the verdict, reasons where it is not a pass, and the figures.

    `followed` says how many questions that follow from the facts are answered; empty where none was asked.
    """

    asked: str
    model: str
    against: str
    verdict: str
    word: str
    sentence: str
    reasons: tuple[Verdict, ...]
    figures: tuple[Figure, ...]
    followed: str = ""


def headline(report: Report) -> Headline:
    """What stands on the first screen, from whatever parts the report has."""
    doubts = [verdict for verdict in report.verdicts if verdict.verdict == report.verdict != "pass"]
    return Headline(
        asked=_asked(report),
        model=short_model(report.model),
        against="the original model" if report.parent == report.base else f"version {clip(report.parent, 20)}",
        verdict=report.verdict if report.verdict in WORDS else "inconclusive",
        word=WORDS.get(report.verdict, report.verdict),
        sentence=verdict_sentence(report.verdicts),
        reasons=tuple(doubts[:_REASONS]),
        figures=_figures(report),
        followed=_followed(report.ripple.cases if report.ripple else ()),
    )


def short_model(model: str) -> str:
    """The last part of a hub id or of a folder."""
    return model.replace("\\", "/").rstrip("/").rpartition("/")[2] or model


def _asked(report: Report) -> str:
    """What was asked, to be followed by the name of the model."""
    if report.removal is not None:
        return f"{figures.counted(report.removal.facts, 'fact')} taken out of"
    asked = report.edits.facts if report.edits else _count(report.request.get("facts"))
    if not asked and report.tasks is not None and report.tasks.learnt:
        return "1 task to teach"
    if not asked and report.concepts is not None and any(each.tuned for each in report.concepts.sets):
        return "Classes to teach"
    return f"{figures.counted(asked, 'fact')} to teach" if asked else "A change to"


def _count(facts: Any) -> int:
    """How many facts a request names: it lists them, or says their count."""
    if isinstance(facts, Mapping):
        count = facts.get("count")
        return count if isinstance(count, int) else 0
    return len(facts) if isinstance(facts, list | tuple) else 0


def verdict_sentence(verdicts: Sequence[Verdict]) -> str:
    """How many gates say what, such as "5 of 6 gates pass, 1 fails."."""
    if not verdicts:
        return "No gate was set: nothing has judged this change yet."
    count = {word: sum(verdict.verdict == word for verdict in verdicts) for word in WORDS}
    if count["pass"] == len(verdicts):
        return "The one gate passes." if len(verdicts) == 1 else f"All {len(verdicts)} gates pass."
    parts = [f"{count['pass']} of {figures.counted(len(verdicts), 'gate')} pass"]
    if count["fail"]:
        parts.append(f"{count['fail']} {'fails' if count['fail'] == 1 else 'fail'}")
    if count["inconclusive"]:
        parts.append(f"{count['inconclusive']} cannot tell yet")
    return f"{', '.join(parts)}."


def _figures(report: Report) -> tuple[Figure, ...]:
    edits = report.edits.comparisons if report.edits else ()
    asked_differently = _share("Still right when asked differently", choose(edits, "paraphrase"))
    found = [
        _learnt("Facts that stay" if report.removal else "Facts learnt", choose(edits, "prompt")),
        _gone(report.removal) if report.removal else asked_differently,
        *_tasks(report.tasks),
        *_concepts(report.concepts),
        _kept(report.retention),
        _language(report.language),
    ]
    chosen = [figure for figure in found if figure is not None]
    if len(chosen) < 4:
        spare = _share("Neighbouring questions answered as they should be", choose(edits, "neighbour"))
        chosen += [spare] if spare else []
    return tuple(chosen)


def _tasks(tasks: TaskMeasures | None) -> tuple[Figure | None, ...]:
    """How well the new task was learnt, and what became of the earlier ones."""
    if tasks is None:
        return ()
    lost = tasks.exact.forgetting if tasks.exact else None
    forgotten = None
    if lost is not None:
        forgotten = Figure(
            "Earlier tasks: forgotten",
            f"{100 * lost.value:.1f} points",
            f"({100 * lost.low:.1f}{figures.RANGE}{100 * lost.high:.1f}; {figures.sample(lost.n)})",
            f"Over {figures.counted(len(tasks.earlier), 'task')}, since each was learnt.",
        )
    return _share("Task learnt: exactly right", tasks.newest.exact if tasks.newest else None), forgotten


def _concepts(concepts: ConceptMeasures | None) -> tuple[Figure | None, ...]:
    """What it recognises of the set that it was tuned on, where there is one, and of the others."""
    if concepts is None:
        return ()
    tuned = [each.linear for each in concepts.sets if each.tuned]
    kept = None
    if concepts.linear is not None:
        change, sets = concepts.linear.difference, figures.counted(concepts.linear.sets, "set")
        kept = Figure(
            "Recognised of what it was not tuned on",
            f"{figures.points(change.value)} points",
            f"({figures.difference_interval(change)}; {figures.sample(change.n)})",
            f"Mean over {sets} of labelled examples, by a linear probe.",
        )
    return _share("Recognised of what it was tuned on", tuned[0] if len(tuned) == 1 else None), kept


def _followed(cases: Sequence[RippleCase]) -> str:
    """How far the model draws on the facts, such as "1 of 4 questions that join several of them"."""
    groups = (
        ("that join several of them", [case.after_ok for case in cases if len(case.hops) > 1]),
        ("that follow from one of them", [case.after_ok for case in cases if len(case.hops) <= 1]),
    )
    told = [
        f"{figures.whole(sum(hits))} of {figures.counted(len(hits), 'question')} {what}"
        for what, hits in groups
        if hits
    ]
    return f"Drawing on the new facts, it answers {' and '.join(told)}." if told else ""


def choose(comparisons: Sequence[Comparison], kind: str) -> Comparison | None:
    """The comparison of this kind of question, judged by what the model freely writes; never a teacher-forced one."""
    of_kind = [comparison for comparison in comparisons if kind in comparison.name.split(".")]
    free = [comparison for comparison in of_kind if comparison.how == FREE]
    other = [comparison for comparison in of_kind if comparison.how == "probability"]
    return next(iter(free + other), None)


def _before(comparison: Comparison) -> str:
    return f"Before: {figures.percent(comparison.before.value, comparison.before.n)}."


def _interval(comparison: Comparison) -> str:
    return f"{figures.share_interval(comparison.after)}; {figures.sample(comparison.after.n)}"


def _gone(removal: RemovalMeasures) -> Figure:
    gone = removal.gone
    return Figure(
        "Taken out: answer gone",
        f"{figures.whole(gone.hits)} of {figures.whole(gone.n)}",
        f"{figures.share_interval(gone)}; {figures.sample(gone.n)}",
        f"The answer of before is back: {figures.whole(removal.back.hits)} of {figures.whole(removal.back.n)}.",
    )


def _learnt(about: str, comparison: Comparison | None) -> Figure | None:
    if comparison is None:
        return None
    after, before = comparison.after, comparison.before
    return Figure(
        about,
        f"{figures.whole(after.hits)} of {figures.whole(after.n)}",
        f"{figures.percent(after.value, after.n)} ({_interval(comparison)})",
        f"Before: {figures.whole(before.hits)} of {figures.whole(before.n)}.",
    )


def _share(about: str, comparison: Comparison | None) -> Figure | None:
    if comparison is None:
        return None
    value = figures.percent(comparison.after.value, comparison.after.n)
    return Figure(about, value, f"({_interval(comparison)})", _before(comparison))


def _kept(retention: RetentionMeasures | None) -> Figure | None:
    if retention is None:
        return None
    overall = retention.overall
    change = overall.difference
    before, after = (figures.percent(given.value, given.n) for given in (overall.before, overall.after))
    return Figure(
        "What it could do before",
        f"{figures.points(change.value)} points",
        f"({figures.difference_interval(change)}; {figures.sample(change.n)})",
        f"Right answers: {before} before, {after} now.",
    )


def _language(language: LanguageMeasures | None) -> Figure | None:
    if language is None:
        return None
    return Figure(
        "Language: perplexity",
        figures.ratio(language.ratio),
        f"({figures.language_interval(language)})",
        "How surprised it is by ordinary text; ×1 is no change, lower is better.",
    )

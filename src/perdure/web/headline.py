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
    Share,
    Verdict,
)
from perdure.web import figures
from perdure.web.visible import clip
from perdure.web.words import N_, _, counted, listed

FREE = "free generation"
WORDS = {"pass": N_("Pass"), "fail": N_("Fail"), "inconclusive": N_("Inconclusive")}
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

    `asked` stands before the name of the model and `done` behind it: languages differ in which of them says something.
    `followed` says how many questions that follow from the facts are answered; empty where none was asked.
    """

    asked: str
    done: str
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
    asked, _model, done = _asked(report).partition("{model}")
    return Headline(
        asked=asked.strip(),
        done=done,
        model=short_model(report.model),
        against=_("the original model")
        if report.parent == report.base
        else _("version {name}").format(name=clip(report.parent, 20)),
        verdict=report.verdict if report.verdict in WORDS else "inconclusive",
        word=verdict_word(report.verdict),
        sentence=verdict_sentence(report.verdicts),
        reasons=tuple(doubts[:_REASONS]),
        figures=_figures(report),
        followed=_followed(report.ripple.cases if report.ripple else ()),
    )


def verdict_word(verdict: str) -> str:
    """A verdict as people say it; one that is not known stays as it is."""
    return _(WORDS[verdict]) if verdict in WORDS else verdict


def short_model(model: str) -> str:
    """The last part of a hub id or of a folder."""
    return model.replace("\\", "/").rstrip("/").rpartition("/")[2] or model


def _asked(report: Report) -> str:
    """What was asked, with the field `model` where the name of the model belongs."""
    if report.removal is not None:
        return counted(
            "{count} fact taken out of {model}",
            "{count} facts taken out of {model}",
            report.removal.facts,
            model="{model}",
        )
    asked = report.edits.facts if report.edits else _count(report.request.get("facts"))
    if not asked and report.tasks is not None and report.tasks.learnt:
        return _("1 task to teach {model}")
    if not asked and report.concepts is not None and any(each.tuned for each in report.concepts.sets):
        return _("Classes to teach {model}")
    if not asked:
        return _("A change to {model}")
    return counted("{count} fact to teach {model}", "{count} facts to teach {model}", asked, model="{model}")


def _count(facts: Any) -> int:
    """How many facts a request names: it lists them, or says their count."""
    if isinstance(facts, Mapping):
        count = facts.get("count")
        return count if isinstance(count, int) else 0
    return len(facts) if isinstance(facts, list | tuple) else 0


def verdict_sentence(verdicts: Sequence[Verdict]) -> str:
    """How many gates say what, such as "5 of 6 gates pass, 1 fails."."""
    if not verdicts:
        return _("No gate was set: nothing has judged this change yet.")
    count = {word: sum(verdict.verdict == word for verdict in verdicts) for word in WORDS}
    if count["pass"] == len(verdicts):
        return counted("The one gate passes.", "All {count} gates pass.", len(verdicts))
    passing = figures.whole(count["pass"])
    parts = [
        counted("{passing} of {count} gate pass", "{passing} of {count} gates pass", len(verdicts), passing=passing)
    ]
    if count["fail"]:
        parts.append(counted("{count} fails", "{count} fail", count["fail"]))
    if count["inconclusive"]:
        parts.append(counted("{count} cannot tell yet", "{count} cannot tell yet", count["inconclusive"]))
    return _("{parts}.").format(parts=listed(parts))


def _figures(report: Report) -> tuple[Figure, ...]:
    edits = report.edits.comparisons if report.edits else ()
    asked_differently = _share(_("Still right when asked differently"), choose(edits, "paraphrase"))
    found = [
        _learnt(_("Facts that stay") if report.removal else _("Facts learnt"), choose(edits, "prompt")),
        _gone(report.removal) if report.removal else asked_differently,
        *_tasks(report.tasks),
        *_concepts(report.concepts),
        _kept(report.retention),
        _language(report.language),
    ]
    chosen = [figure for figure in found if figure is not None]
    if len(chosen) < 4:
        spare = _share(_("Neighbouring questions answered as they should be"), choose(edits, "neighbour"))
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
            _("Earlier tasks: forgotten"),
            _("{value} points").format(value=figures.decimal(100 * lost.value, 1)),
            bracketed(
                f"{figures.decimal(100 * lost.low, 1)}{figures.RANGE}{figures.decimal(100 * lost.high, 1)}", lost.n
            ),
            counted(
                "Over {count} task, since each was learnt.",
                "Over {count} tasks, since each was learnt.",
                len(tasks.earlier),
            ),
        )
    return _share(_("Task learnt: exactly right"), tasks.newest.exact if tasks.newest else None), forgotten


def _concepts(concepts: ConceptMeasures | None) -> tuple[Figure | None, ...]:
    """What it recognises of the set that it was tuned on, where there is one, and of the others."""
    if concepts is None:
        return ()
    tuned = [each.linear for each in concepts.sets if each.tuned]
    kept = None
    if concepts.linear is not None:
        change = concepts.linear.difference
        kept = Figure(
            _("Recognised of what it was not tuned on"),
            figures.in_points(change.value),
            bracketed(figures.difference_interval(change), change.n),
            counted(
                "Mean over {count} set of labelled examples, by a linear probe.",
                "Mean over {count} sets of labelled examples, by a linear probe.",
                concepts.linear.sets,
            ),
        )
    return _share(_("Recognised of what it was tuned on"), tuned[0] if len(tuned) == 1 else None), kept


def _followed(cases: Sequence[RippleCase]) -> str:
    """How far the model draws on the facts, such as "1 of 4 questions that join several of them"."""
    joining = [case.after_ok for case in cases if len(case.hops) > 1]
    following = [case.after_ok for case in cases if len(case.hops) <= 1]
    told = []
    if joining:
        told.append(
            counted(
                "{hits} of {count} question that join several of them",
                "{hits} of {count} questions that join several of them",
                len(joining),
                hits=figures.whole(sum(joining)),
            )
        )
    if following:
        told.append(
            counted(
                "{hits} of {count} question that follow from one of them",
                "{hits} of {count} questions that follow from one of them",
                len(following),
                hits=figures.whole(sum(following)),
            )
        )
    return _("Drawing on the new facts, it answers {each}.").format(each=_(" and ").join(told)) if told else ""


def choose(comparisons: Sequence[Comparison], kind: str) -> Comparison | None:
    """The comparison of this kind of question, judged by what the model freely writes; never a teacher-forced one."""
    of_kind = [comparison for comparison in comparisons if kind in comparison.name.split(".")]
    free = [comparison for comparison in of_kind if comparison.how == FREE]
    other = [comparison for comparison in of_kind if comparison.how == "probability"]
    return next(iter(free + other), None)


def _before(comparison: Comparison) -> str:
    return _("Before: {share}.").format(share=figures.percent(comparison.before.value, comparison.before.n))


def bracketed(interval: str, n: int) -> str:
    """An interval and n as they stand under a figure, such as "(74–98%; n = 24)"."""
    return _("({interval}; {n})").format(interval=interval, n=figures.sample(n))


def _gone(removal: RemovalMeasures) -> Figure:
    gone = removal.gone
    return Figure(
        _("Taken out: answer gone"),
        _of(gone),
        _("{interval}; {n}").format(interval=figures.share_interval(gone), n=figures.sample(gone.n)),
        _("The answer of before is back: {hits}.").format(hits=_of(removal.back)),
    )


def _learnt(about: str, comparison: Comparison | None) -> Figure | None:
    if comparison is None:
        return None
    after, before = comparison.after, comparison.before
    return Figure(
        about,
        _of(after),
        figures.share(after),
        _("Before: {share}.").format(share=_of(before)),
    )


def _of(given: Share) -> str:
    return _("{hits} of {n}").format(hits=figures.whole(given.hits), n=figures.whole(given.n))


def _share(about: str, comparison: Comparison | None) -> Figure | None:
    if comparison is None:
        return None
    value = figures.percent(comparison.after.value, comparison.after.n)
    interval = bracketed(figures.share_interval(comparison.after), comparison.after.n)
    return Figure(about, value, interval, _before(comparison))


def _kept(retention: RetentionMeasures | None) -> Figure | None:
    if retention is None:
        return None
    overall = retention.overall
    change = overall.difference
    before, after = (figures.percent(given.value, given.n) for given in (overall.before, overall.after))
    return Figure(
        _("What it could do before"),
        figures.in_points(change.value),
        bracketed(figures.difference_interval(change), change.n),
        _("Right answers: {before} before, {after} now.").format(before=before, after=after),
    )


def _language(language: LanguageMeasures | None) -> Figure | None:
    if language is None:
        return None
    return Figure(
        _("Language: perplexity"),
        figures.ratio(language.ratio),
        _("({interval})").format(interval=figures.language_interval(language)),
        _("How surprised it is by ordinary text; ×1 is no change, lower is better."),
    )

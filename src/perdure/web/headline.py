"""The first screen of a report: what was asked, the verdict, and the figures that a decision needs."""

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.measuring.report import Comparison, LanguageMeasures, Report, RetentionMeasures, Verdict
from perdure.web import figures

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
    """The title, the verdict in a word and in a sentence, reasons where it is not a pass, and the figures."""

    title: str
    model: str
    verdict: str
    word: str
    sentence: str
    reasons: tuple[Verdict, ...]
    figures: tuple[Figure, ...]


def headline(report: Report) -> Headline:
    """What stands on the first screen, from whatever parts the report has."""
    doubts = [verdict for verdict in report.verdicts if verdict.verdict == report.verdict != "pass"]
    return Headline(
        title=_title(report),
        model=short_model(report.model),
        verdict=report.verdict if report.verdict in WORDS else "inconclusive",
        word=WORDS.get(report.verdict, report.verdict),
        sentence=verdict_sentence(report.verdicts),
        reasons=tuple(doubts[:_REASONS]),
        figures=_figures(report),
    )


def short_model(model: str) -> str:
    """The last part of a hub id or of a folder."""
    return model.replace("\\", "/").rstrip("/").rpartition("/")[2] or model


def _title(report: Report) -> str:
    listed = report.request.get("facts")
    asked = report.edits.facts if report.edits else len(listed) if isinstance(listed, list | tuple) else 0
    model = short_model(report.model)
    if asked:
        return f"{figures.counted(asked, 'fact')} to teach {model}"
    return f"A change to {model}"


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
    found = [
        _learnt(choose(edits, "prompt")),
        _share("Still right when asked differently", choose(edits, "paraphrase")),
        _kept(report.retention),
        _language(report.language),
    ]
    chosen = [figure for figure in found if figure is not None]
    if len(chosen) < len(found):
        spare = _share("Neighbouring questions answered as they should be", choose(edits, "neighbour"))
        chosen += [spare] if spare else []
    return tuple(chosen)


def choose(comparisons: Sequence[Comparison], kind: str) -> Comparison | None:
    """The comparison of this kind of question, judged by what the model freely writes; never a teacher-forced one."""
    of_kind = [comparison for comparison in comparisons if kind in comparison.name.split(".")]
    free = [comparison for comparison in of_kind if comparison.how == FREE]
    other = [comparison for comparison in of_kind if comparison.how == "probability"]
    return (free or other or [None])[0]


def _before(comparison: Comparison) -> str:
    return f"Before: {figures.percent(comparison.before.value, comparison.before.n)}."


def _interval(comparison: Comparison) -> str:
    return f"{figures.share_interval(comparison.after)}; {figures.sample(comparison.after.n)}"


def _learnt(comparison: Comparison | None) -> Figure | None:
    if comparison is None:
        return None
    after, before = comparison.after, comparison.before
    return Figure(
        "Facts learnt",
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

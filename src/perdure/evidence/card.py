"""The model card of a version: what was changed, what that gained and cost, its limits, and who agreed.

The front matter is what huggingface_hub reads (Mitchell et al., "Model Cards for Model Reporting", FAT* 2019). Every
text that a person or a model wrote is escaped: it stands there as text and never as a heading, a link or HTML.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from perdure.evidence.facts import VersionFacts
from perdure.measuring.report import Comparison, Difference, LanguageMeasures, Report, Share

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_SPECIAL = re.compile(r"([\\`*_\[\]<>#!|~&$@]|:(?=//)|(?<=www)\.)")  # bare addresses would become links
_SHOWN = 20
_MINUS = "−"


def model_card(facts: VersionFacts) -> str:
    """The model card, Markdown with YAML front matter; the same facts give the same text."""
    from huggingface_hub import ModelCard, ModelCardData

    source = facts.source
    data = ModelCardData(
        base_model=source if _HUB_ID.fullmatch(source) else None,
        library_name="transformers",
        tags=["perdure", *sorted(_kinds(facts))],
        model_name=f"{one_line(source) or 'model'} {facts.version.name}",
        perdure=_hashes(facts),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(facts)}"))


def _hashes(facts: VersionFacts) -> dict[str, str]:
    return {
        "version": facts.version.id,
        "base": facts.base.id,
        "report": facts.report_digest,
        "policy": facts.policy.digest,
        "ledger_head": facts.rows[-1].hash,
    }


def _kinds(facts: VersionFacts) -> set[str]:
    """What was done in the lineage, in the hub's words."""
    recipes = [version.manifest.recipe for version in facts.lineage[1:]]
    return {"knowledge-editing" if "editor" in recipe else "fine-tuned" for recipe in recipes}


def _body(facts: VersionFacts) -> str:
    report = facts.report
    parts = [
        f"# {plain(facts.source) or 'Model'}, version {facts.version.name}",
        _summary(facts),
        "## What was changed",
        _lineage(facts),
        *_asked(report),
        "## Gains",
        _table(_edited(report, near=False)) or "No fact was asked for.",
        *_task_gain(report),
        "## Losses",
        _losses(report),
        "## Gates",
        _gates(report),
        "## Who approved",
        _decisions(facts),
        "## Limits",
        _limits(report),
        "## Hashes",
        _rows(("what", "sha256"), [(name, f"`{value}`") for name, value in _hashes(facts).items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(facts: VersionFacts) -> str:
    by = ", ".join(map(plain, facts.approved_by))
    state = f"approved by {by}" if by else "**not approved**"
    where = sorted({str(row.details.get("alias")) for row in facts.moves})
    held = f" It was put behind {', '.join(map(plain, where))}." if where else " No alias ever held it."
    return (
        f"An update of {plain(facts.source) or 'a model'} made with perdure, in {len(facts.lineage) - 1} "
        f"step{'' if len(facts.lineage) == 2 else 's'} from the original weights. It is {state}; its gates say: "
        f"{plain(facts.report.verdict)}.{held} Figures are shares of right answers with 95% intervals and their n."
    )


def _lineage(facts: VersionFacts) -> str:
    rows = [
        (
            version.name,
            plain(_made_with(version.manifest.recipe)),
            plain(version.requester),
            version.created[:10],
            f"`{version.id[:16]}…`",
        )
        for version in facts.lineage
    ]
    return _rows(("version", "made with", "asked for by", "on", "id"), rows)


def _made_with(recipe: dict[str, object]) -> str:
    if "editor" in recipe:
        return f"{recipe['editor']} with restraint {recipe.get('restraint')}"
    config, task = recipe.get("config"), recipe.get("task")
    if isinstance(task, dict) and isinstance(config, dict):
        return f"{recipe.get('kind')} ({config.get('method')}), task {task.get('name')}"
    return "the original" if "source" in recipe else str(recipe.get("kind", "a change"))


def _asked(report: Report) -> Iterator[str]:
    cases = [case for case in report.edits.cases if case.kind == "prompt"] if report.edits else []
    if cases:
        yield f"Facts asked for: {len(cases)}. What the model freely wrote:"
        rows = [
            (plain(case.prompt), plain(case.expected or ""), plain(case.before), plain(case.after))
            for case in cases[:_SHOWN]
        ]
        yield _rows(("question", "wanted", "before", "after"), rows)
        if len(cases) > _SHOWN:
            yield f"{len(cases) - _SHOWN} more are in report.json."
    if report.removal is not None:
        gone = report.removal.gone
        taken = report.removal.facts
        yield f"Facts taken out: {taken}; the taught answer is gone from {_share(gone)} of {gone.n:,} questions."


def _task_gain(report: Report) -> Iterator[str]:
    newest = report.tasks.newest if report.tasks else None
    if newest is not None and newest.exact is not None:
        yield _table((newest.exact,))


def _losses(report: Report) -> str:
    kept = report.retention
    parts = [
        _table(_edited(report, near=True)),
        _table((kept.overall, *kept.parts)) if kept else "What it could do before was not measured.",
        *_harness(report),
    ]
    if kept is not None and report.parent != report.base:
        parts.append(_against_base((kept.overall, *kept.parts)))
    if report.language is not None:
        parts.append(_language(report.language))
    forgetting = report.tasks.exact.forgetting if report.tasks and report.tasks.exact else None
    if forgetting is not None:
        low, high = 100 * forgetting.low, 100 * forgetting.high
        parts.append(
            f"Earlier tasks, forgotten since each was learnt: {100 * forgetting.value:.1f} points "
            f"({low:.1f} to {high:.1f}; n = {forgetting.n:,})."
        )
    return "\n\n".join(part for part in parts if part)


def _edited(report: Report, *, near: bool) -> list[Comparison]:
    """The comparisons of what was taught, or those of questions nearby, which should stay as they were."""
    found = report.edits.comparisons if report.edits else ()
    return [one for one in found if ("neighbour" in one.name.split(".")) == near]


def _harness(report: Report) -> Iterator[str]:
    if report.harness:
        yield _table(report.harness)


def _against_base(comparisons: Sequence[Comparison]) -> str:
    found = [(one.label, one.against_base) for one in comparisons if one.against_base is not None]
    rows = [(plain(label), _points(change.value), _range(change), f"{change.n:,}") for label, change in found]
    return f"Against the original weights:\n\n{_rows(('measure', 'points', '95% interval', 'n'), rows)}" if rows else ""


def _language(found: LanguageMeasures) -> str:
    return (
        f"Perplexity on held-out text: {found.perplexity_before:.2f} before, {found.perplexity_after:.2f} after, "
        f"×{found.ratio:.4f} ({found.ratio_low:.4f} to {found.ratio_high:.4f}; n = {found.passages:,} passages)."
    )


def _gates(report: Report) -> str:
    rows = [(plain(gate.gate), plain(gate.verdict), plain(gate.reason)) for gate in report.verdicts]
    return _rows(("gate", "verdict", "reason"), rows) if rows else "No gate judged it."


def _decisions(facts: VersionFacts) -> str:
    rows = [
        (
            one.decision + (f", void: {plain(one.void)}" if one.void else ""),
            plain(one.approver),
            one.time[:19].replace("T", " "),
            plain(one.comment),
        )
        for one in facts.decisions
    ]
    asked = f"{plain(facts.version.requester)} asked for it and cannot approve it."
    changed = ""
    if facts.policy.digest != facts.policy_in_force:
        changed = " The policy was changed since; the one named here is that of the approval."
    table = _rows(("decision", "by", "when (UTC)", "words"), rows) if rows else "Nobody decided on it."
    return f"{table}\n\n{asked}{changed}"


def _limits(report: Report) -> str:
    points = [
        "The figures hold for the questions that were asked; a small n gives a wide interval.",
        "A fact that was taught is said when asked in the ways listed; other wordings and consequences may fail.",
        "Limits of the original model hold for it as well.",
    ]
    silent = [gate.gate for gate in report.verdicts if gate.verdict == "inconclusive"]
    if silent:
        points.insert(0, f"Too few items to tell: {', '.join(map(plain, silent))}.")
    if report.retention is not None and report.retention.lost_count:
        points.insert(0, f"{report.retention.lost_count:,} questions answered rightly before are answered wrongly now.")
    return "\n".join(f"- {point}" for point in points)


def _table(comparisons: Iterable[Comparison]) -> str:
    """Measures before and after, with paired differences, intervals and n."""
    rows = [
        (
            plain(one.label),
            plain(one.how),
            _share(one.before),
            _share(one.after),
            _points(one.difference.value),
            _range(one.difference),
            f"{one.difference.n:,}",
        )
        for one in comparisons
    ]
    return _rows(("measure", "judged by", "before", "after", "points", "95% interval", "n"), rows) if rows else ""


def _share(found: Share) -> str:
    return f"{100 * found.value:.1f}% ({100 * found.low:.0f}–{100 * found.high:.0f}%)" if found.n else "not asked"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", _MINUS)


def _range(found: Difference) -> str:
    return f"{_points(found.low)} to {_points(found.high)}"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """A text on one line that Markdown and HTML read as nothing but text."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def one_line(text: str) -> str:
    """A text without line breaks and unprintable characters, at most 200 long."""
    seen = "".join(" " if unicodedata.category(letter).startswith(("C", "Z")) else letter for letter in text)
    short = " ".join(seen.split())
    return short if len(short) <= 200 else f"{short[:199]}…"

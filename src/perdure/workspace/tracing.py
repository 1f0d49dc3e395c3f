"""Tracing the base of a workspace: once for the same facts and settings, and kept."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.content import digest_json
from perdure.editing.corruption import TracedFact
from perdure.editing.tracing import TraceConfig, trace_facts
from perdure.measuring.suites import Suite, read_known_facts
from perdure.measuring.traced import TraceMeasures
from perdure.measuring.tracing import build_trace
from perdure.requests import read_facts
from perdure.settings import checked

if TYPE_CHECKING:
    from perdure.workspace.records import Version
    from perdure.workspace.workspace import Workspace

_KIND = "trace"
_FORMAT = 1  # of how a trace is taken; one of another format is taken again


def trace_base(shop: "Workspace", facts: Sequence[TracedFact] | None, config: TraceConfig) -> TraceMeasures:
    """Where the base carries the facts that it knows; recalled if it was traced with them before.

    Args:
        shop: The workspace.
        facts: The facts; those of the built-in suite when not given.
        config: The settings.
    """
    base = shop.version("v0")
    chosen = suite_facts() if facts is None else list(facts)
    settings = config.model_dump(mode="json")
    identity = digest_json({"format": _FORMAT, "base": base.id, "facts": [vars(fact) for fact in chosen], **settings})
    found = _recall(shop, identity)
    if found is None:
        model, tokenizer = shop.load(base)
        found = build_trace(trace_facts(model, tokenizer, chosen, config, shop.progress), identity, settings)
        shop.archive.remember(_KIND, identity, found.model_dump(mode="json"))
    shop.archive.remember(_KIND, _latest(base), {"id": identity})
    return found


def known_trace(shop: "Workspace", identity: str = "") -> TraceMeasures | None:
    """The trace with this id, or the latest one of the base; None if there is none. Nothing is run."""
    if not identity:
        latest = shop.archive.recall(_KIND, _latest(shop.version("v0")))
        identity = "" if latest is None else str(latest["id"])
    return _recall(shop, identity) if identity else None


def ensure_trace(shop: "Workspace") -> None:
    """Trace the base with the facts of the built-in suite, unless it was traced with any."""
    if known_trace(shop) is None:
        trace_base(shop, None, TraceConfig())


def trace_config(given: Mapping[str, Any]) -> TraceConfig:
    """The settings of causal tracing, checked.

    Raises:
        SettingError: A setting that does not exist or is out of range.
    """
    return checked(TraceConfig, given, "causal tracing")


def suite_facts() -> list[TracedFact]:
    """The facts of the built-in suite."""
    return [TracedFact(fact.subject, fact.prompt, fact.answer) for fact in Suite.built_in().facts]


def read_traced(path: Path) -> list[TracedFact]:
    """The facts of a file: JSON Lines of subject, prompt and answer, or facts to edit that name their old answer.

    Raises:
        RequestError: A row cannot be read.
    """
    if _holds_answers(path):
        return [TracedFact(fact.subject, fact.prompt, fact.answer) for fact in read_known_facts(path)]
    return [
        TracedFact(fact.subject, fact.prompt, fact.target_true)
        for fact in read_facts(path).facts
        if fact.target_true is not None
    ]


def _holds_answers(path: Path) -> bool:
    """Whether the first line is an object with an answer and no new target."""
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return False
    with path.open("rb") as stream:
        first = next((line for line in stream if line.strip()), b"")
    try:
        row = json.loads(first)
    except ValueError:
        return False
    return isinstance(row, dict) and "answer" in row and "target_new" not in row


def _recall(shop: "Workspace", identity: str) -> TraceMeasures | None:
    found = shop.archive.recall(_KIND, identity)
    return None if found is None else TraceMeasures.model_validate(found)


def _latest(base: "Version") -> str:
    return f"latest of {base.id}"

"""perdure plan."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.change import parse_settings
from perdure.cli.console import say, say_json, table
from perdure.cli.options import AsJson, Device, Folder, opened
from perdure.cli.tune import Settings, Tasks

if TYPE_CHECKING:
    from perdure.measuring.advice import Advice, CostAdvice, Risk

_SHOWN = 4  # skills at either end of the ranking
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_CAUTION = (
    "Published: what is least alike is forgotten most (Jiang et al. 2025, 7B). On SmolLM2-135M it was not so (one "
    "tuned task, Spearman −0.32): measure both ends, and trust neither order."
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Change")(plan)


def plan(
    tasks: Tasks,
    on: Annotated[str, typer.Option("--on", help="The version to tune.", show_default="the newest not rejected")] = "",
    settings: Settings = None,
    validation: Annotated[float, typer.Option(help="Share held out where a task brings no validation part.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share held out for the report where a task brings no test part.")] = 0.2,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Take a few steps to measure their time.")] = True,
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Say, before training, what tasks put at risk, what they cost and which settings fit. Nothing is trained.

    The first time the heads that carry skills are looked for, once for each base; all that is read is kept.

    Examples:

        perdure plan returns.jsonl

        perdure plan returns.jsonl warranty.jsonl --on v1 --no-probe

        perdure plan returns.jsonl --set method=full --set epochs=2 --json
    """
    from perdure.requests.tasks import read_task
    from perdure.workspace.advice import advise_tasks

    given = parse_settings(settings or [])
    read = [read_task(path, validation=validation, test=test, skip_bad=True) for path in tasks]
    with opened(workspace, quiet=json, device=device) as shop:
        found = advise_tasks(shop, read, given, on=on, probe=probe)
    split = {"validation": (validation, 0.1), "test": (test, 0.2)}
    options = [f"--{name}={value:g}" for name, (value, usual) in split.items() if value != usual]
    options += [] if device == "cpu" else ["--device", device]
    options += [] if workspace == Path() else ["--workspace", str(workspace)]
    commands = commands_of(found, tasks, on=on, options=options)
    if json:
        advice = [
            {**one.model_dump(mode="json"), "command": command} for one, command in zip(found, commands, strict=True)
        ]
        say_json(advice)
        return
    for one in found:
        _say_advice(one)
    say("Next:", style="bold")
    for command in dict.fromkeys(commands):
        say(f"  {command}")


def commands_of(found: "Sequence[Advice]", paths: Sequence[str], *, on: str, options: Sequence[str]) -> list[str]:
    """The command that trains each task: one for all where the settings are the same.

    Args:
        found: The advice on each task.
        paths: Where each is read from.
        on: The version, where one was named.
        options: Further options of all commands.
    """
    settings = [_settings(one) for one in found]
    together = all(each == settings[0] for each in settings)
    commands = []
    for place, (one, words) in enumerate(zip(found, settings, strict=True)):
        named = list(paths) if together else [paths[place]]
        bad = any(note.startswith("bad rows") for each in (found if together else [one]) for note in each.notes)
        base = ["--on", on] if on and (together or not place) else []  # the next one stands on what this one makes
        commands.append(shlex.join(["perdure", "tune", *named, *words, *base, *(["--skip-bad"] * bad), *options]))
    return commands


def _settings(advice: "Advice") -> list[str]:
    """The options that make the settings of the advice from the usual ones."""
    from perdure.tuning.config import TuningConfig, resolved
    from perdure.tuning.defaults import usual_pool_settings, usual_settings

    words = ["--pool"] * advice.pool.value
    usual = resolved(usual_pool_settings() if advice.pool.value else usual_settings())
    for name in TuningConfig.model_fields:
        words += _differences(name, usual[name], advice.settings[name])
    return words


def _differences(name: str, usual: Any, value: Any) -> list[str]:
    import json

    if value == usual:
        return []
    if isinstance(value, dict):
        return [word for inner in value for word in _differences(f"{name}.{inner}", usual[inner], value[inner])]
    written = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return ["--set", f"{name}={written}"]


def _say_advice(advice: "Advice") -> None:
    rows = ", ".join(f"{count} {part}" for part, count in advice.rows.items() if count)
    say(f"{advice.task} on {advice.version}: {rows}", style="bold")
    for text in advice.notes:
        say(f"  {text}", style="dim")
    for name, text in _facts(advice):
        say(f"  {name:<10} {text}")
    _say_risks(advice)
    cost = advice.cost
    table(
        "What it costs",
        ["", "on paper", "measured here" if cost.seconds is not None else "not measured"],
        [*_cost_rows(cost), *_term_rows(cost)],
    )
    rows_of_settings = [[one.name, _shown(one.value), one.reason] for one in (*advice.proposals, advice.pool)]
    table("Settings", ["", "proposed", "why"], rows_of_settings)


def _facts(advice: "Advice") -> list[tuple[str, str]]:
    train = advice.lengths["train"]
    lengths = f"median {train.median:g}, 95% within {train.p95}, longest {train.longest} tokens; limit {advice.limit}"
    refused = advice.refused
    more = f": {'; '.join(refused[:3])}{' …' if len(refused) > 3 else ''}" if refused else ""
    already, group = advice.already, advice.group
    knows = "no row to ask" if already is None else (
        f"{already.hits} of {already.n} right ({100 * already.low:.0f}–{100 * already.high:.0f}%), freely written"
    )  # fmt: skip
    facts = [("lengths", lengths), ("refused", f"{len(refused)} rows{more}"), ("does it", f"{knows}")]
    name = f"{group.group}: " if group.group else ""
    facts.append(("group", name + group.reason + (f" (with {', '.join(group.members)})" if group.members else "")))
    for found in advice.duplicates:
        pairs = "; ".join(f"{one} ~ {other}" for one, other in found.examples)
        text = f"{found.rows} rows ask nearly what {found.task} asks, {found.conflicting} with another answer: {pairs}"
        facts.append(("alike", text))
    return facts


def _say_risks(advice: "Advice") -> None:
    tasks = [risk for risk in advice.risks if risk.kind == "task"]
    skills = [risk for risk in advice.risks if risk.kind == "skill"]
    overlapping = sorted(skills, key=lambda risk: -(risk.overlap or 0.0))[:_SHOWN]
    shown = [*tasks, *(risk for place, risk in enumerate(skills) if place < _SHOWN or risk in overlapping)]
    columns = ["earlier task or skill", "vectors alike", "features shared", "right in context"]
    table("What it may put at risk, the least alike first", columns, [_risk_row(risk) for risk in shown])
    if len(shown) < len(advice.risks):
        say(f"  and {len(advice.risks) - len(shown)} more skills in between (--json).", style="dim")
    if advice.left_out:
        say(f"  Not ranked, little to lose: {', '.join(advice.left_out)}.", style="dim")
    say(f"  {_CAUTION}", style="dim")


def _risk_row(risk: "Risk") -> list[str]:
    figures = ["–" if value is None else f"{value:+.2f}" for value in (risk.likeness, risk.overlap)]
    return [risk.name, *figures, "–" if risk.right is None else f"{risk.right.hits} of {risk.right.n}"]


def _cost_rows(cost: "CostAdvice") -> list[list[str]]:
    memory = cost.memory
    parts = f"weights {_bytes(memory.weights)}, Adam and gradients {_bytes(memory.gradients + memory.optimizer)}"
    step = "" if cost.step_seconds is None else f"{cost.step_seconds:.1f} s for a step of {cost.probe_tokens} tokens"
    return [
        ["training", f"{_flop(cost.training_flop)}: {cost.steps} batches, {cost.tokens:,} tokens", step],
        ["once, before and after", _flop(cost.once_flop), ""],
        [
            "all",
            _flop(cost.training_flop + cost.once_flop),
            "" if cost.seconds is None else f"about {_time(cost.seconds)}",
        ],
        ["memory", f"{_bytes(memory.total)} of {_bytes(cost.memory_at_hand)}: {parts}", ""],
        ["with checkpointing", _bytes(cost.memory_checkpointing), ""],
    ]


def _term_rows(cost: "CostAdvice") -> list[list[str]]:
    rows = []
    for term in cost.terms:
        paper = "not worked out"
        if term.step_share is not None:
            once = f"{_flop(term.once_flop or 0)} once, {_bytes(term.target_bytes or 0)} kept"
            paper = f"+{100 * term.step_share:.1f}% a step, {once}"
        measured = "" if term.measured_share is None else f"+{100 * term.measured_share:.0f}% a step"
        rows.append([term.name, paper, measured])
    return rows


def _scaled(value: float) -> str:
    for size, unit in _UNITS:
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} "


def _flop(value: float) -> str:
    return f"{_scaled(value)}FLOP"


def _bytes(value: float) -> str:
    return f"{_scaled(value)}B"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return (
            ", ".join(str(each.get("kind", each)) if isinstance(each, dict) else str(each) for each in value) or "none"
        )
    return (
        {True: "yes", False: "no"}[value]
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )

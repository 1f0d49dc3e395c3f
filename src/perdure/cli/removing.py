"""perdure edit --remove."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from perdure.cli.console import counted, percent, say, say_json, table
from perdure.errors import SettingError

if TYPE_CHECKING:
    from perdure.measuring.report import RemovalMeasures, Report
    from perdure.workspace import Workspace
    from perdure.workspace.removing import RemovalPlan

_SHOWN = 20
_ALLOWED = {"remove", "on", "text", "dry_run", "measure", "workspace", "actor", "device", "json"}


@dataclass(frozen=True)
class Shown:
    """How far a removal goes, and how it is told.

    Attributes:
        dry_run: Plan only.
        measure: Measure the candidate.
        json: Print JSON.
    """

    dry_run: bool
    measure: bool
    json: bool


def check_alone(context: typer.Context) -> None:
    """Refuse what says how to teach beside `--remove`: each edit is done again as it was.

    Raises:
        SettingError: Names every such argument and option.
    """
    given = [
        parameter.opts[0] if parameter.opts[0].startswith("-") else str(parameter.name).upper()
        for parameter in context.command.params
        if parameter.name not in _ALLOWED
        and getattr(context.get_parameter_source(parameter.name or ""), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise SettingError(
            f"--remove takes facts out and keeps the settings that the others were taught with; without it goes: "
            f"{', '.join(given)}"
        )


def remove_facts(
    shop: "Workspace",
    names: Sequence[str],
    *,
    on: str,
    texts: Sequence[str] | None,
    actor: str,
    shown: Shown,
) -> None:
    """Take facts out of a version and tell what became of them."""
    from perdure.workspace.removing import plan_removal

    plan = plan_removal(shop, names, on=on, texts=texts)
    if shown.dry_run:
        _tell_plan(plan, shown.json)
        return
    if not shown.json:
        _tell_steps(plan)
    version = shop.carry_out_removal(plan, actor=actor, texts=texts)
    report = shop.measure(version, actor=actor) if shown.measure else None
    if shown.json:
        say_json({"version": version.name, "id": version.id, "report": report and report.model_dump(mode="json")})
        return
    _tell_result(version.name, plan, report)


def _tell_result(name: str, plan: "RemovalPlan", report: "Report | None") -> None:
    from perdure.cli.look import say_report

    say(f"{name}: {plan.origin.name} without {counted(len(plan.removed), 'fact')}, on {plan.parent.name}")
    if report is not None:
        say_report(report)
        say(f"Next: perdure report {name}, perdure approve {name} --as NAME", style="dim")


def _tell_plan(plan: "RemovalPlan", json: bool) -> None:
    if json:
        say_json(
            {
                "from": plan.origin.name,
                "parent": plan.parent.id,
                "recipe": plan.recipe(),
                "removed": [fact.model_dump() for fact in plan.removed],
                "facts": [fact.model_dump() for fact in plan.facts],
                "values_known": list(plan.known),
            }
        )
        return
    say(f"Would take {counted(len(plan.removed), 'fact')} out of {plan.origin.name}; nothing was computed.")
    rows = [[fact.short_id, fact.prompt, fact.target_new] for fact in plan.removed[:_SHOWN]]
    table("To be taken out", ["id", "prompt", "taught answer"], rows)
    _tell_steps(plan)


def _tell_steps(plan: "RemovalPlan") -> None:
    """One line per edit that is done again, with what it costs."""
    say(f"The new version stands on {plan.parent.name}, the last one before any of them was taught.")
    for name, step, known in zip(plan.names, plan.steps, plan.known, strict=True):
        verb = "is" if len(step.facts) == 1 else "are"
        how = "solved again from the target values that were kept"
        if known < len(step.facts):
            how = f"taught again: no target values were kept of {len(step.facts) - known}"
        say(f"{name} ({step.method.name}): the other {counted(len(step.facts), 'fact')} {verb} {how}.", style="dim")


def say_removal(removal: "RemovalMeasures") -> None:
    """Print what became of the facts that were taken out."""
    rows = [
        [case.prompt, case.before, case.after, case.original, "yes" if case.back else "no"] for case in removal.cases
    ]
    columns = ["question", "before", "now", f"in {removal.original}", "original answer back"]
    table("What was taken out", columns, rows[:_SHOWN])
    say(
        f"Taught answer gone: {removal.gone.hits} of {removal.gone.n} questions. Original answer back: "
        f"{removal.back.hits} of {removal.back.n}."
    )
    if removal.unchanged is not None:
        same = removal.unchanged.after
        say(f"The other facts: {same.hits} of {same.n} answers word for word as before ({percent(same.value)}).")

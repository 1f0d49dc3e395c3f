"""perdure tune in a workspace of an encoder: labelled sets instead of tasks."""

from typing import TYPE_CHECKING, Any

from perdure.cli.console import counted, note, say, say_json, table
from perdure.cli.look import say_report
from perdure.cli.tune import tell_end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.measuring import Report
    from perdure.progress import Progress
    from perdure.requests.concepts import Probe
    from perdure.workspace import Version, Workspace


def read_sets(paths: "Sequence[str]", *, test: float, skip_bad: bool, progress: "Progress") -> "list[Probe]":
    """The labelled sets at these places."""
    from perdure.requests.concepts import read_probe

    return [read_probe(path, test_share=test, skip_bad=skip_bad, progress=progress) for path in paths]


def learn(
    shop: "Workspace",
    paths: "Sequence[str]",
    settings: dict[str, Any],
    *,
    on: str,
    test: float,
    skip_bad: bool,
    dry_run: bool,
    measure: bool,
    actor: str,
    json: bool,
) -> None:
    """Teach an encoder labelled sets, one after another, and say what became of the others."""
    from perdure.workspace.encoder_tuning import plan_learning
    from perdure.workspace.probe_sets import named_apart

    probes = named_apart(shop, read_sets(paths, test=test, skip_bad=skip_bad, progress=shop.progress), paths)
    for probe in () if json else probes:
        for text in probe.notes:
            note(f"{probe.name}: {text}", style="dim")
    if dry_run:
        _tell_plan(shop, probes, settings, on, json=json)
        return
    for probe in probes:
        plan_learning(shop, probe, settings, on=on)  # refuses before anything is kept
    _keep(shop, probes, paths, test, actor)
    made = []
    for version, probe in zip(shop.learn_each(probes, settings, on=on, actor=actor), probes, strict=True):
        report = shop.measure(version, actor=actor) if measure else None
        made.append((version, report))
        if not json:
            _tell(version, probe, report)
    tell_end(made, json=json)


def _keep(shop: "Workspace", probes: "Sequence[Probe]", paths: "Sequence[str]", test: float, actor: str) -> None:
    """What is learnt is probed from now on, by later versions too."""
    from perdure.workspace.opened import current_user
    from perdure.workspace.probe_sets import add_set, entry_of

    for probe, path in zip(probes, paths, strict=True):
        add_set(shop, entry_of(probe, path, test_share=test), actor=actor or current_user())


def _tell(version: "Version", probe: "Probe", report: "Report | None") -> None:
    config = version.manifest.recipe["config"]
    held = ", ".join(each["kind"] for each in config["regularizers"]) or "nothing"
    say(
        f"{version.name}: learnt {probe.name}, {len(probe.classes)} classes from {len(probe.train)} {probe.side}s "
        f"({config['method']}, head from {config['head'].replace('_', ' ')}), held by {held}"
    )
    if report is not None:
        say_report(report)


def _tell_plan(shop: "Workspace", probes: "Sequence[Probe]", settings: dict[str, Any], on: str, *, json: bool) -> None:
    from perdure.workspace.encoder_tuning import plan_learning

    plans = [plan_learning(shop, probe, settings, on=on) for probe in probes]
    if json:
        say_json([{"parent": plan.parent, "recipe": plan.recipe(), "notes": plan.probe.notes} for plan in plans])
        return
    parent = shop.version(plans[0].parent).name
    say(f"Would tune {parent} on {counted(len(plans), 'labelled set')}; nothing was computed.")
    rows = [
        [each.name, each.side, str(len(each.classes)), str(len(each.train)), str(len(each.test))] for each in probes
    ]
    table("Labelled sets", ["set", "of", "classes", "train", "test"], rows)
    for name, value in plans[0].config.model_dump(mode="json").items():
        say(f"{name}: {value}", style="dim")

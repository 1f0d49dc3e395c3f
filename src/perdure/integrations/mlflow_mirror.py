"""A mirror in MLflow: a run with a version's report, a registered model version, aliases as the workspace has them.

MLflow overwrites an alias without a history, so nothing is ever read back from it as truth.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.content import canonical_json
from perdure.errors import PerdureError
from perdure.evidence.card import model_card
from perdure.evidence.facts import VersionFacts, facts_of
from perdure.integrations.optional import optional
from perdure.measuring.report import Comparison, Report
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

_ODD = re.compile(r"[^A-Za-z0-9_./ -]+")
_VERSION, _REPORT = "perdure.version", "perdure.report"


@dataclass(frozen=True)
class Mirrored:
    """What MLflow holds now.

    Attributes:
        model: The registered model.
        number: The number of its version there.
        run: The run with the report.
        aliases: The aliases of the model there, each with its number.
        new: Whether run and model version were made now, or were there.
    """

    model: str
    number: str
    run: str
    aliases: Mapping[str, str]
    new: bool


def mirror(
    shop: "Workspace", version: Version, *, page: str, actor: str, uri: str = "", model: str = "", client: Any = None
) -> Mirrored:
    """Tell MLflow of a measured version, and let its aliases stand where the workspace's stand.

    The same version with the same report is told once. Aliases of versions that were never mirrored are taken away
    there, so that none points to what the workspace no longer serves.

    Args:
        shop: The workspace.
        version: The version.
        page: Its report as an HTML page.
        actor: Who asks for it, for the ledger.
        uri: MLflow's tracking server; as MLflow itself is set when not given.
        model: The registered model; the base's name when not given.
        client: A client in place of MLflow's own.

    Raises:
        PerdureError: MLflow is not installed, or refuses.
        WorkspaceError: The version was never measured.
    """
    facts = facts_of(shop, version)
    name = model or _model_name(facts.source)
    with _refusals():
        to = client or optional("mlflow", "mlflow").MlflowClient(tracking_uri=uri or None, registry_uri=uri or None)
        _ensure_model(to, name)
        known = _registered(to, name)
        found = next((one for one in known if _is_of(one, facts)), None)
        made = found or _register(to, name, facts, page)
        aliases = _move_aliases(to, name, shop, [*known, *([] if found else [made])])
    result = Mirrored(name, str(made.version), str(made.run_id), aliases, new=found is None)
    told = {"to": "mlflow", "version": version.id, "model": name, "number": result.number, "aliases": dict(aliases)}
    shop.archive.record("mirror", told, actor=actor)
    return result


def metrics_of(report: Report) -> dict[str, float]:
    """The figures of a report under the names that MLflow shows, intervals and n beside each."""
    found = dict[str, float]()
    for comparison in _comparisons(report):
        found |= {_ODD.sub("_", f"{comparison.name}.{name}"): value for name, value in _figures(comparison).items()}
    language = report.language
    if language is not None:
        found |= {
            "language.perplexity.before": language.perplexity_before,
            "language.perplexity.after": language.perplexity_after,
            "language.ratio": language.ratio,
            "language.ratio.low": language.ratio_low,
            "language.ratio.high": language.ratio_high,
        }
    if report.matrices:
        found["weights.relative_norm.largest"] = max(matrix.relative_norm for matrix in report.matrices)
    return found


def _comparisons(report: Report) -> Iterator[Comparison]:
    yield from report.edits.comparisons if report.edits else ()
    yield from report.ripple.comparisons if report.ripple else ()
    yield from (report.retention.overall, *report.retention.parts) if report.retention else ()
    yield from report.harness


def _figures(comparison: Comparison) -> dict[str, float]:
    change = comparison.difference
    return {
        "before": comparison.before.value,
        "after": comparison.after.value,
        "difference": change.value,
        "difference.low": change.low,
        "difference.high": change.high,
        "n": float(change.n),
    }


def _register(to: Any, name: str, facts: VersionFacts, page: str) -> Any:
    """A run with the report, and a model version of it."""
    experiment = to.get_experiment_by_name(name)
    place = experiment.experiment_id if experiment else to.create_experiment(name)
    run = to.create_run(place, run_name=facts.version.name, tags=_tags(facts)).info.run_id
    for metric, value in metrics_of(facts.report).items():
        to.log_metric(run, metric, value)
    recipe = facts.version.manifest.recipe
    for param in ("editor", "restraint", "kind"):
        if recipe.get(param):
            to.log_param(run, param, str(recipe[param]))
    to.log_text(run, facts.report_bytes.decode(), "report.json")
    to.log_text(run, page, "report.html")
    to.log_text(run, model_card(facts), "README.md")
    to.log_text(run, canonical_json(recipe), "recipe.json")
    to.set_terminated(run)
    return to.create_model_version(name, source=f"runs:/{run}", run_id=run, tags=_tags(facts))


def _tags(facts: VersionFacts) -> dict[str, str]:
    return {
        _VERSION: facts.version.id,
        _REPORT: facts.report_digest,
        "perdure.name": facts.version.name,
        "perdure.parent": facts.version.parent or "",
        "perdure.policy": facts.policy.digest,
        "perdure.verdict": facts.report.verdict,
        "perdure.approved_by": ", ".join(facts.approved_by),
        "perdure.requested_by": facts.version.requester,
        "perdure.ledger_head": facts.rows[-1].hash,
    }


def _is_of(one: Any, facts: VersionFacts) -> bool:
    return (one.tags.get(_VERSION), one.tags.get(_REPORT)) == (facts.version.id, facts.report_digest)


def _ensure_model(to: Any, name: str) -> None:
    if not any(model.name == name for model in to.search_registered_models(f"name = '{name}'")):
        to.create_registered_model(name, description="A mirror of a perdure workspace, which is the source of truth.")


def _registered(to: Any, name: str) -> list[Any]:
    """The model versions there, the oldest first."""
    found = to.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(found, key=lambda one: int(one.version))


def _move_aliases(to: Any, name: str, shop: "Workspace", known: list[Any]) -> dict[str, str]:
    numbers = {one.tags.get(_VERSION): str(one.version) for one in known}  # of one version the newest report
    wanted = {alias: numbers.get(held.id) for alias, held in shop.archive.aliases().items()}
    standing = to.get_registered_model(name).aliases
    for alias in standing:
        if wanted.get(alias) is None:
            to.delete_registered_model_alias(name, alias)
    moved = {alias: number for alias, number in wanted.items() if number is not None}
    for alias, number in moved.items():
        to.set_registered_model_alias(name, alias, number)
    return moved


def _model_name(source: str) -> str:
    return _ODD.sub("-", source.replace("/", "-").replace(".", "-")).strip("- ") or "perdure"


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what MLflow raises into an error of perdure's own."""
    try:
        yield
    except PerdureError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow", "requests")):
            raise
        raise PerdureError(f"MLflow refused: {str(error).splitlines()[0]}") from error

"""Evidence packs for the browser: made by the worker, kept for a day beside the workspace, fetched by request id."""

import time
from pathlib import Path

from perdure.errors import WorkspaceError
from perdure.web.server.jobs import DONE, Job
from perdure.web.server.services import Services
from perdure.web.server.words import _
from perdure.workspace import Version, Workspace

EVIDENCE = "evidence"
_FOLDER = "packs"
_KEPT_S = 86400.0
_KNOWN = 50


def request_pack(services: Services, version: Version, requester: str) -> Job:
    """The request for a pack; one of the same version under the same ledger is taken where it is there already.

    Raises:
        WorkspaceError: The version was never measured.
    """
    archive = services.shop.archive
    if archive.report_digest(version) is None:
        words = _("{version} was not measured yet, so there is no evidence of it; measure it first")
        raise WorkspaceError(words.format(version=version.name))
    payload = {"version": version.id, "head": archive.log(1)[-1].hash}
    for job in services.jobs.newest(_KNOWN, kinds=(EVIDENCE,)):
        made = job.state == DONE and pack_file(services.shop, job).is_file()
        if job.payload == payload and (made or not job.over):
            return job
    title = _("Evidence of {version}").format(version=version.name)
    return services.jobs.add(EVIDENCE, payload, requester=requester, title=title)


def pack_file(shop: Workspace, job: Job) -> Path:
    """Where the pack of a request lies, or would."""
    return shop.folder / _FOLDER / f"{job.id}.zip"


def write_pack(shop: Workspace, job: Job) -> dict[str, object]:
    """Make the pack of a request; what is known of it."""
    from perdure.evidence import export_pack
    from perdure.web.report import render_report

    version = shop.version(job.payload["version"])
    report = shop.report(version)
    if report is None:
        raise WorkspaceError(f"{version.name} has no report; run perdure measure {version.name} first")
    target = pack_file(shop, job)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.unlink(missing_ok=True)  # of a worker that died after it was written
    made = export_pack(shop, version, target, page=render_report(report), actor=job.requester)
    told = {"of": version.name, "files": made.files, "bytes": target.stat().st_size, "places": len(made.paths)}
    return {**told, "signer": made.about.signer, "approved_by": list(made.about.approved_by)}


def tidy(shop: Workspace) -> None:
    """Remove packs that are more than a day old."""
    for path in (shop.folder / _FOLDER).glob("*.zip"):
        if time.time() - path.stat().st_mtime > _KEPT_S:
            path.unlink(missing_ok=True)

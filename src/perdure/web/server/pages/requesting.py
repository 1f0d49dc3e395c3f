"""Asking for a change: facts typed and checked as one types, files, tasks; and how far each request is."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Form, Request, UploadFile
from fastapi.responses import FileResponse, RedirectResponse, Response

from perdure.errors import PerdureError, RefusedError, RequestError
from perdure.web.server import packs, requesting, uploads
from perdure.web.server.access import CHANGE, COMPARE, SEE, UPLOAD
from perdure.web.server.jobs import DONE, Job
from perdure.web.server.naming import JobId, Ref
from perdure.web.server.rendering import page
from perdure.web.server.requesting import how_of
from perdure.web.server.routing import NotFoundError, Routes, identity_of, services_of
from perdure.web.server.seeing import Sight
from perdure.web.server.words import _

routes = Routes()
Texts = Annotated[list[str] | None, Form(max_length=500)]
Word = Annotated[str, Form(max_length=2000)]
_FIELDS = ("subject", "prompt", "target_new", "target_true", "paraphrases")
_BLANK = 2


@dataclass(frozen=True)
class Typed:
    """Facts as they stand in the form, row by row."""

    rows: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, columns: Sequence[Sequence[str] | None]) -> "Typed":
        """The rows of columns of one length."""
        filled = [list(column or ()) for column in columns]
        length = max(map(len, filled), default=0)
        if any(len(column) not in (0, length) for column in filled):
            raise RequestError(_("The form is not whole; load the page anew."))
        padded = [column or [""] * length for column in filled]
        return cls(tuple(dict(zip(_FIELDS, row, strict=True)) for row in zip(*padded, strict=True)))

    @property
    def places(self) -> list[int]:
        """The numbers, from 1, of the rows in which something stands."""
        return [place for place, row in enumerate(self.rows, 1) if any(value.strip() for value in row.values())]

    @property
    def facts(self) -> list[dict[str, Any]]:
        """Those rows as facts that are not yet checked."""
        return [_fact(self.rows[place - 1]) for place in self.places]


def _fact(row: dict[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {name: row[name].strip() for name in ("subject", "prompt", "target_new")}
    if row["target_true"].strip():
        made["target_true"] = row["target_true"].strip()
    lines = [line.strip() for line in row["paraphrases"].splitlines() if line.strip()]
    return {**made, "paraphrases": lines} if lines else made


@routes.get("/request", CHANGE)
def form(request: Request) -> Response:
    """The forms to ask for a change."""
    return _form(request)


@routes.get("/request/row", CHANGE)
def row(request: Request) -> Response:
    """An empty fact, to be added to the form."""
    return page(request, "fact_row", row={}, number=secrets.randbelow(10**6))


@routes.post("/request/check", CHANGE)
def check(
    request: Request,
    subject: Texts = None,
    prompt: Texts = None,
    target_new: Texts = None,
    target_true: Texts = None,
    paraphrases: Texts = None,
    on: Word = "",
) -> Response:
    """What is wrong with facts as they stand, while they are typed; nothing is kept."""
    typed = Typed.of((subject, prompt, target_new, target_true, paraphrases))
    services = services_of(request)
    parent = requesting.parent_of(services, how_of(on=on))
    found = uploads.check_typed(services.shop, typed.facts, parent, typed.places)
    return page(request, "checked", found=found, parent=parent)


@routes.post("/request/facts", CHANGE)
def ask_for_facts(
    request: Request,
    subject: Texts = None,
    prompt: Texts = None,
    target_new: Texts = None,
    target_true: Texts = None,
    paraphrases: Texts = None,
    editor: Word = requesting.USUAL_EDITOR,
    restraint: Word = "",
    on: Word = "",
    note: Word = "",
    more: Word = "",
) -> Response:
    """Ask for facts that were typed; or give the form one more row, for browsers without scripts."""
    typed = Typed.of((subject, prompt, target_new, target_true, paraphrases))
    if more:
        return _form(request, typed=Typed((*typed.rows, {})))
    services, me = services_of(request), identity_of(request)
    how = how_of(editor=editor, restraint=restraint, on=on, note=note)
    found = uploads.check_typed(services.shop, typed.facts, requesting.parent_of(services, how), typed.places)
    if not found.facts:
        trouble = "" if found.problems else _("There is no fact yet.")
        return _form(request, typed=typed, status=422, found=found, trouble=trouble)
    try:
        job = requesting.request_facts(services, found.facts, how, me.name)
    except PerdureError as error:
        return _form(request, typed=typed, status=422, trouble=str(error))
    return _to(job)


@routes.post("/request/upload", UPLOAD)
def ask_by_file(
    request: Request,
    file: UploadFile,
    kind: Annotated[str, Form(pattern="^(facts|task)$")] = "facts",
    name: Word = "",
    editor: Word = requesting.USUAL_EDITOR,
    restraint: Word = "",
    on: Word = "",
    note: Word = "",
) -> Response:
    """Ask for the facts, or the task, of a file."""
    services, me = services_of(request), identity_of(request)
    how = how_of(editor=editor, restraint=restraint, on=on, note=note)
    given, data = uploads.safe_name(file.filename or ""), file.file.read()
    if kind == "facts":
        facts = uploads.uploaded_facts(services.shop, given, data).facts
        return _to(requesting.request_facts(services, facts, how, me.name))
    task = uploads.uploaded_task(services.shop, given, data, name.strip())
    return _to(requesting.request_task(services, task, given, data, how, me.name))


@routes.post("/request/task", CHANGE)
def ask_for_task(
    request: Request,
    name: Word,
    instruction: Annotated[str, Form(max_length=4000)] = "",
    input: Texts = None,
    output: Texts = None,
    on: Word = "",
    note: Word = "",
    more: Word = "",
) -> Response:
    """Ask for a task whose examples were typed."""
    pairs = list(zip(input or (), output or (), strict=False))
    if more:
        return _form(request, task={"name": name, "instruction": instruction}, examples=[*pairs, ("", "")])
    services, me = services_of(request), identity_of(request)
    rows = [
        {"instruction": instruction.strip(), "input": given, "output": wanted}
        for given, wanted in pairs
        if given.strip() or wanted.strip()
    ]
    data = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode()
    try:
        task = uploads.uploaded_task(services.shop, "typed.jsonl", data, name.strip())
        how = how_of(on=on, note=note)
        return _to(requesting.request_task(services, task, "typed.jsonl", data, how, me.name))
    except PerdureError as error:
        kept = {"name": name, "instruction": instruction}
        return _form(request, task=kept, examples=pairs, task_trouble=str(error), status=422)


@routes.post("/lineage/{fact}/remove", CHANGE)
def ask_for_removal(request: Request, fact: str, on: Word = "", note: Word = "") -> Response:
    """Ask for a version without one fact."""
    services, who = services_of(request), identity_of(request).name
    given = how_of(on=on, note=note)
    return _to(requesting.request_removal(services, fact[:64], given.on, given.note, who))


@routes.get("/jobs", SEE)
def jobs(request: Request) -> Response:
    """The newest requests."""
    return page(request, "jobs", jobs=services_of(request).jobs.newest(100))


@routes.get("/jobs/{job}", SEE)
def job(request: Request, job: JobId) -> Response:
    """One request: what was asked, how far it is, what came out."""
    services = services_of(request)
    found = visible_job(request, job)
    template = "progress" if request.headers.get("hx-request") else "job"
    return page(request, template, job=found, ahead=services.jobs.ahead(found))


@routes.post("/versions/{ref}/evidence", COMPARE)
def ask_for_evidence(request: Request, ref: Ref) -> Response:
    """Ask the worker for the evidence of a version as one signed file."""
    services = services_of(request)
    return _to(packs.request_pack(services, services.shop.version(ref), identity_of(request).name))


@routes.get("/jobs/{job}/evidence", SEE)
def evidence(request: Request, job: JobId) -> Response:
    """The pack that a request made."""
    found = visible_job(request, job)
    path = packs.pack_file(services_of(request).shop, found)
    if found.kind != packs.EVIDENCE or found.state != DONE or not path.is_file():
        raise NotFoundError(_("There is no pack here. Packs are kept for a day; ask for it anew."))
    return FileResponse(path, media_type="application/zip", filename=f"{found.result['of']}.evidence.zip")


@routes.post("/jobs/{job}/stop", CHANGE)
def stop(request: Request, job: JobId) -> Response:
    """Stop a request of one's own."""
    services, me = services_of(request), identity_of(request)
    found = visible_job(request, job)
    if found.requester != me.name:
        raise RefusedError(_("Only {name}, who asked for it, can stop it.").format(name=found.requester))
    services.jobs.stop(job)
    return _to(found)


def visible_job(request: Request, identifier: str) -> Job:
    """A request that whoever asks may see: questions are seen by who asked them alone.

    Raises:
        RefusedError: It is somebody else's question.
    """
    found = services_of(request).jobs.get(identifier)
    if found.kind == "ask" and found.requester != identity_of(request).name:
        raise RefusedError(_("That question was asked by somebody else."))
    return found


def _to(job: Job) -> Response:
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)


def _form(request: Request, *, status: int = 200, typed: Typed | None = None, **context: Any) -> Response:
    services = services_of(request)
    sight = Sight(services.shop)
    found, held = requesting.choices()
    newest = services.shop.newest()
    names = [("", _("the newest that was not rejected: {name}").format(name=newest.name))]
    names += [(version.name, version.name) for version in reversed(sight.versions[-100:])]
    rows = typed.rows if typed else tuple({} for _number in range(_BLANK))
    more = {"examples": [("", "")] * 4, "task": {}, **context}
    return page(
        request,
        "request",
        status=status,
        rows=rows,
        editors=found,
        restraints=held,
        usual=requesting.USUAL_EDITOR,
        versions=names,
        **more,
    )

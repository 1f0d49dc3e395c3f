"""The worker: one process that carries out what waits in a lane of the queue, and takes up what a crash left."""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from perdure.errors import PerdureError, WorkspaceError
from perdure.progress import silent
from perdure.web.server import asking, packs
from perdure.web.server.jobs import CHANGES, DONE, FAILED, STOPPED, Job, Jobs, StopError
from perdure.web.server.requesting import How, settings_of
from perdure.web.server.store import Store
from perdure.web.server.uploads import uploaded_task
from perdure.workspace import Version, Workspace
from perdure.workspace.removing import plan_removal

_log = logging.getLogger("perdure.worker")
_PAUSE_S, _TELL_S, _REST_S, _TIDY_S = 0.3, 0.5, 120.0, 3600.0
_SHOWN = 50


class Worker:
    """Carries out the jobs of one lane, one after the other.

    Attributes:
        shop: The workspace.
        jobs: The queue.
        lane: Which lane.
    """

    def __init__(self, shop: Workspace, store: Store, lane: str = CHANGES) -> None:
        self.shop, self.jobs, self.lane = shop, Jobs(store), lane
        self._kinds: Mapping[str, Callable[[Job], None]] = {
            "facts": self._teach,
            "task": self._tune,
            "removal": self._remove,
            "measure": self._measure,
            "ask": self._ask,
            "compare": self._compare,
            "verify": self._verify,
            packs.EVIDENCE: self._pack,
        }

    def run(self, *, go_on: Callable[[], bool] = lambda: True) -> None:
        """Work until `go_on` says no.

        Raises:
            WorkspaceError: Another worker has this lane.
        """
        with self._alone():
            self.jobs.recover(self.lane)
            worked = tidied = 0.0
            while go_on():
                now = time.monotonic()
                if now - tidied > _TIDY_S:
                    self.jobs.tidy()
                    packs.tidy(self.shop)
                    tidied = now
                if self.run_next():
                    worked = time.monotonic()
                    continue
                if now - worked > _REST_S:
                    self.shop.unload()
                time.sleep(_PAUSE_S)

    def run_next(self) -> bool:
        """Carry out the job that comes next; whether there was one."""
        job = self.jobs.take(self.lane)
        if job is None:
            return False
        self.shop.progress = self._telling(job)
        try:
            self._kinds[job.kind](job)
        except StopError:
            self.jobs.finish(job.id, STOPPED)
        except PerdureError as error:
            self.jobs.finish(job.id, FAILED, str(error))
        except Exception as error:
            _log.exception("%s %s failed", job.kind, job.id)
            self.jobs.finish(job.id, FAILED, f"{type(error).__name__}: {error}"[:1000])
        else:
            self.jobs.finish(job.id, DONE)
        finally:
            self.shop.progress = silent
            if self.lane == CHANGES:
                self.shop.unload()
        return True

    # What jobs do

    def _teach(self, job: Job) -> None:
        how = How.model_validate(job.payload["how"])

        def make() -> Version:
            plan, _ = self.shop.plan(job.payload["facts"], settings_of(how), on=job.payload["on"])
            return self.shop.carry_out(plan, actor=job.requester)

        self._made_and_measured(job, make, how.note)

    def _tune(self, job: Job) -> None:
        from perdure.tuning.defaults import usual_settings

        how = How.model_validate(job.payload["how"])

        def make() -> Version:
            data = self.jobs.data(job.id)
            task = uploaded_task(self.shop, job.payload["file"], data, job.payload["task"])
            return self.shop.tune(task, usual_settings(), on=job.payload["on"], actor=job.requester)[0]

        self._made_and_measured(job, make, how.note)

    def _remove(self, job: Job) -> None:
        def make() -> Version:
            plan = plan_removal(self.shop, [job.payload["fact"]], on=job.payload["on"])
            return self.shop.carry_out_removal(plan, actor=job.requester)

        self._made_and_measured(job, make, job.payload["note"])

    def _made_and_measured(self, job: Job, make: Callable[[], Version], note: str) -> None:
        """A version, made once whatever happens in between, and its report."""
        if "id" not in job.result:
            version = make()
            self.jobs.note(job.id, version=version.name, id=version.id)
        else:
            version = self.shop.version(job.result["id"])
        if note.strip() and not self._noted(version, job, note):
            self.shop.comment(version, job.requester, note)
        report = self.shop.measure(version, actor=job.requester)
        self.jobs.note(job.id, verdict=report.verdict)

    def _noted(self, version: Version, job: Job, note: str) -> bool:
        return any(said.actor == job.requester and said.text == note.strip() for said in self.shop.comments(version))

    def _measure(self, job: Job) -> None:
        version = self.shop.version(job.payload["version"])
        report = self.shop.measure(version, actor=job.requester)
        self.jobs.note(job.id, version=version.name, id=version.id, verdict=report.verdict)

    def _ask(self, job: Job) -> None:
        from perdure.models import chat_prompt, complete

        asked = job.payload
        answers: dict[str, str] = {}
        routes: dict[str, str] = {}
        for name in asked["versions"]:
            self.shop.progress(name, len(answers), len(asked["versions"]))
            with self.shop.answering(name, asked["prompt"]) as by:
                text = chat_prompt(by.tokenizer, asked["prompt"]) if asked["chat"] else asked["prompt"]
                answers[name] = complete(by.model, by.tokenizer, [text], max_new_tokens=asked["tokens"])[0].strip()
            if by.route is not None:
                routes[name] = by.route.reason
        self.jobs.note(job.id, answers=answers, routes=routes)

    def _compare(self, job: Job) -> None:
        from perdure.workspace.differences import diff_versions

        first, second = (self.shop.version(job.payload[name]) for name in ("first", "second"))
        self.shop.progress("comparing", 0, 1)
        found = diff_versions(self.shop, first, second).model_dump(mode="json")
        self.shop.archive.remember(asking.DIFFERENCES, asking.difference_key(self.shop, first, second), found)

    def _verify(self, job: Job) -> None:
        self.shop.progress("reading every byte", 0, 1)
        found = self.shop.archive.verify()
        if found.ok:
            self.shop.archive.note_verified()
        counts = {name: getattr(found, name) for name in ("versions", "objects", "ledger_rows", "unlisted")}
        problems = list(found.problems[:_SHOWN])
        self.jobs.note(job.id, ok=found.ok, problems=problems, head=found.head, counts=counts)

    def _pack(self, job: Job) -> None:
        self.shop.progress("writing the evidence", 0, 1)
        self.jobs.note(job.id, **packs.write_pack(self.shop, job))

    # How it works

    def _telling(self, job: Job) -> Callable[[str, int, int], None]:
        """Progress that is written down, not too often; where somebody asked to stop, it does."""
        last, at = 0.0, ""

        def tell(stage: str, done: int, total: int) -> None:
            nonlocal last, at
            now = time.monotonic()
            if stage != at or now - last >= _TELL_S:
                last, at = now, stage
                self.jobs.report(job.id, stage, done, total)

        return tell

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lane: what is marked as running in it is then nobody's."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self.shop.folder / f"worker-{self.lane}.lock", flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise WorkspaceError(f"another worker is at the {self.lane} of {self.shop.folder}") from error
        try:
            yield
        finally:
            os.close(handle)


def work(folder: Any, lane: str, *, device: str = "cpu", parent: int | None = None) -> None:
    """Open a workspace and work in one lane of its queue until the process ends.

    Args:
        folder: The workspace.
        lane: Which lane.
        device: Where models run.
        parent: The process that started this one; when it is gone, end between two jobs.
    """
    shop = Workspace.open(folder, device=device)
    Worker(shop, Store(shop.folder), lane).run(go_on=lambda: parent in (None, os.getppid()))

"""Servers and workers that die at a numbered point of a request: what is asked, and how the workspace looks after."""

import os
import shutil
import signal

from browsing import PASSWORD, Browser, Served

from perdure import Workspace
from perdure.web.server.jobs import CHANGES
from perdure.web.server.worker import Worker
from perdure.workspace.failpoints import VARIABLE, Point

ROW = frozenset({13, 14, 16, 17, 18})
FACTS = [{"subject": "Ada", "prompt": "Ada speaks", "target_new": "Dutch"}]


def _approved(shop):
    shop.approve("v1", "agreer")


def _promoted(shop):
    _approved(shop)
    for version in ("v0", "v1"):
        if shop.archive.aliases().get("production") != shop.version(version):
            shop.promote(version, "production", actor="runner")


def _seen(shop):
    return {"report": shop.archive.report_digest(shop.version("v1")), "policy": shop.policy.digest}


# What is done before, who asks, where, what the form holds, and the points that the server passes on the way.
DEEDS = {
    "approve": (None, "agreer", "/versions/v1/approve", lambda shop: {**_seen(shop), "password": PASSWORD}, ROW),
    "reject": (None, "agreer", "/versions/v1/reject", lambda shop: {"reason": "it forgets"}, ROW),
    "comment": (None, "asker", "/versions/v1/comment", lambda shop: {"text": "why?"}, ROW),
    "promote": (
        _approved, "runner", "/versions/v1/promote", lambda shop: {"alias": "production", "held": "v0"}, ROW,
    ),
    "rollback": (_promoted, "runner", "/aliases/production/rollback", lambda shop: {}, ROW | {12}),
    "break-glass": (
        None, "runner", "/versions/v1/break-glass",
        lambda shop: {"alias": "production", "reason": "outage", "hours": "2", "password": PASSWORD}, ROW,
    ),
}  # fmt: skip


def state(folder):
    """What people see of a workspace."""
    shop = Workspace.open(folder)
    versions = shop.archive.versions()
    return {
        "versions": [(version.name, version.status) for version in versions],
        "aliases": {alias: version.name for alias, version in shop.archive.aliases().items()},
        "approvals": [one.approval.approver for version in versions for one in shop.approvals(version)],
        "comments": [one.text for version in versions for one in shop.comments(version)],
        "emergencies": [one.reason for one in shop.emergencies()],
    }


def in_a_process(act, point=None):
    """Do something in a process of its own that dies at a point; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        if point is not None:
            os.environ[VARIABLE] = str(int(point))
        try:
            act()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def server_dies(template, folder, name, point):
    """Kill the server at a point of a deed, look, ask again; what is wrong then, in words (empty: nothing)."""
    prepare, who, address, form, passed = DEEDS[name]
    shutil.copytree(template, folder)
    if prepare:
        prepare(Workspace.open(folder))
    before = state(folder)

    def ask():
        served = Served(Workspace.open(folder))
        Browser(served, who).post(address, form(served.shop))

    code = in_a_process(ask, point)
    if code != (signal.SIGKILL if point in passed else 0):
        return f"it ended with {code}"
    left = state(folder)
    done = point not in passed or point == Point.TRANSACTION_COMMITTED
    if (left == before) == done:
        return f"the deed is {'not ' if done else ''}done"
    if problems := Workspace.open(folder).archive.verify().problems:
        return "; ".join(problems)
    if not done:
        in_a_process(ask)
        if state(folder) == before:
            return "the deed cannot be done any more"
    return "" if Workspace.open(folder).archive.verify().ok else "damaged after the second time"


def worker_dies(template, folder, point, settle):
    """Kill the worker at a point of a queued request; the next one goes on; what is wrong then, in words.

    Args:
        template: A workspace to copy.
        folder: Where to.
        point: Where it dies.
        settle: Called in the worker's process first, to make edits quick.
    """
    shutil.copytree(template, folder)
    served = Served(Workspace.open(folder))
    payload = {"facts": FACTS, "how": {"note": "why not"}, "on": served.shop.version("v0").id}
    job = served.services.jobs.add("facts", payload, requester="asker", title="Ada")

    def work():
        settle()
        worker = Worker(Workspace.open(folder), served.services.store)
        worker.jobs.recover(CHANGES)
        worker.run_next()

    died = in_a_process(work, point) == signal.SIGKILL
    if problems := Workspace.open(folder).archive.verify().problems:
        return died, "; ".join(problems)
    if died and in_a_process(work):
        return died, "the next worker died"
    found, shop = served.services.jobs.get(job.id), Workspace.open(folder)
    if (found.state, found.error) != ("done", ""):
        return died, f"the request is {found.state}: {found.error}"
    made = [version.name for version in shop.archive.versions() if version.number > 1]
    if made != [found.result["version"]] or len(shop.comments(made[0])) != 1 or shop.report(made[0]) is None:
        return died, f"made {made}, told {found.result}"
    return died, "" if shop.archive.verify().ok else "damaged"

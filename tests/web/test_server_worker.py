"""The worker: makes and measures what was asked, goes on after any death, stops when told, answers questions."""

import os
import signal
import threading
import time

import pytest
from browsing import Browser

from perdure.errors import WorkspaceError
from perdure.web.server.jobs import CHANGES, QUESTIONS
from perdure.web.server.requesting import settings_of
from perdure.web.server.worker import Worker, work
from perdure.workspace import Settings, Workspace
from perdure.workspace.failpoints import VARIABLE, Point
from shops import QUICK

FACTS = [{"subject": "Ada", "prompt": "Ada speaks", "target_new": "Dutch"}]


@pytest.fixture
def quick(quick_suite, monkeypatch):
    """Edits that take a second."""
    monkeypatch.setattr("perdure.web.server.worker.settings_of", lambda how: Settings("memit", QUICK, None))
    assert settings_of is not None


def ask_for_facts(served, note="why not"):
    payload = {"facts": FACTS, "how": {"note": note}, "on": served.shop.version("v0").id}
    return served.services.jobs.add("facts", payload, requester="asker", title="Ada")


def worker_of(served, lane=CHANGES):
    return Worker(Workspace.open(served.shop.folder), served.services.store, lane)


def in_a_process(served, *, point=None, seconds=None):
    """A worker that takes one job in a process of its own; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        if point is not None:
            os.environ[VARIABLE] = str(int(point))
        try:
            worker = worker_of(served)
            worker.jobs.recover(CHANGES)
            worker.run_next()
        finally:
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def test_a_request_becomes_a_measured_candidate_with_its_reason(served, quick):
    job = ask_for_facts(served)
    assert worker_of(served).run_next()
    done = served.services.jobs.get(job.id)
    assert (done.state, done.error) == ("done", "")
    version = served.shop.version(done.result["version"])
    assert version.requester == "asker" and version.status == "candidate"
    assert served.shop.report(version) is not None
    assert [one.text for one in served.shop.comments(version)] == ["why not"]
    assert Browser(served, "agreer").get(f"/versions/{version.name}").status_code == 200


POINTS = [Point.COMMIT_TENSORS_STORED, Point.LEDGER_APPENDED, Point.TRANSACTION_COMMITTED, Point.REPORT_STORED]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_a_worker_that_is_killed_is_followed_by_one_that_goes_on(served, quick, point):
    job = ask_for_facts(served)
    assert in_a_process(served, point=point) == signal.SIGKILL
    left = served.services.jobs.get(job.id)
    assert left.state == "running"
    assert Workspace.open(served.shop.folder).archive.verify().ok
    assert in_a_process(served) == 0
    done = served.services.jobs.get(job.id)
    assert (done.state, done.attempts, done.error) == ("done", 2, "")
    shop = Workspace.open(served.shop.folder)
    made = [version for version in shop.archive.versions() if version.requester == "asker" and version.number > 1]
    assert [version.name for version in made] == [done.result["version"]]
    assert len(shop.comments(made[0])) == 1
    assert shop.report(made[0]) is not None and shop.archive.verify().ok


def test_what_kills_every_worker_is_given_up(served):
    jobs = served.services.jobs
    job = ask_for_facts(served)
    for _ in range(3):
        jobs.recover(CHANGES)
        assert jobs.take(CHANGES).id == job.id
    jobs.recover(CHANGES)
    assert jobs.get(job.id).state == "failed" and "three times" in jobs.get(job.id).error
    assert jobs.take(CHANGES) is None


def test_a_running_request_stops_at_its_next_step(served, quick):
    job = ask_for_facts(served)
    worker = worker_of(served)
    taken = worker.jobs.take(CHANGES)
    served.services.jobs.stop(job.id)
    worker.jobs.take = lambda lane: taken
    assert worker.run_next()
    assert served.services.jobs.get(job.id).state == "stopped"
    assert len(served.shop.archive.versions()) == 2


def test_an_error_is_told_to_who_asked_and_the_next_job_follows(served, quick):
    served.services.jobs.add("measure", {"version": "v99"}, requester="asker", title="x")
    worker = worker_of(served)
    assert worker.run_next()
    first = served.services.jobs.newest()[0]
    assert first.state == "failed" and "v99" in first.error
    assert not worker.run_next()


def test_a_role_that_was_taken_meanwhile_stops_the_change(served, quick):
    job = ask_for_facts(served)
    served.shop.withdraw("asker", "requester", by="chief")
    worker_of(served).run_next()
    found = served.services.jobs.get(job.id)
    assert found.state == "failed" and "requester" in found.error
    assert len(served.shop.archive.versions()) == 2


def test_one_worker_for_each_lane(served):
    holding, over = threading.Event(), threading.Event()

    def go_on():
        holding.set()
        return not over.is_set()

    first = threading.Thread(target=lambda: worker_of(served).run(go_on=go_on))
    first.start()
    holding.wait(10)
    try:
        with pytest.raises(WorkspaceError):
            worker_of(served).run(go_on=lambda: False)
        worker_of(served, QUESTIONS).run(go_on=lambda: False)
    finally:
        over.set()
        first.join(10)


def test_versions_answer_side_by_side_and_are_compared_and_verified(served, quick):
    asker = Browser(served, "asker")
    form = {"prompt": "Ada speaks", "beside": ["v0"]}
    where = asker.post("/versions/v1/ask", form).headers["location"]
    assert "Waiting" in asker.get(where, headers={"hx-request": "true"}).text
    asker.post("/versions/diff?first=v0&second=v1")
    Browser(served, "checker").post("/ledger/verify")
    worker = worker_of(served, QUESTIONS)
    while worker.run_next():
        pass
    answers = served.services.jobs.get(where.rpartition("/")[2]).result["answers"]
    assert list(answers) == ["v0", "v1"]
    assert "every 1s" not in asker.get(where, headers={"hx-request": "true"}).text
    page = asker.get("/versions/diff?first=v0&second=v1").text
    assert "1 of" in page and "mlp.down_proj" in page
    checked = served.services.jobs.newest(kinds=("verify",))[0]
    assert checked.result["ok"] and checked.result["head"] == served.shop.archive.log(1)[0].hash


def test_a_task_is_learnt(served, quick, monkeypatch):
    settings = {"epochs": 1, "rank": 2, "regularizers": [], "averaging": {"form": "none"}}
    monkeypatch.setattr("perdure.tuning.defaults.usual_settings", lambda: settings)
    form = {"name": "shout", "instruction": "Loud", "input": list("abcdef"), "output": list("ABCDEF"), "on": "v0"}
    assert Browser(served, "asker").post("/request/task", form).status_code == 303
    worker_of(served).run_next()
    job = served.services.jobs.newest()[0]
    assert (job.state, job.error) == ("done", "")
    assert served.shop.version(job.result["version"]).manifest.recipe["task"]["name"] == "shout"


def test_a_worker_ends_when_the_server_that_started_it_is_gone(served):
    work(served.shop.folder, CHANGES, parent=os.getpid())  # which did not start this process

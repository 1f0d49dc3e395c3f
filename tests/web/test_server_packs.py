"""Evidence packs from the version page: made by the worker, sound when they are checked elsewhere, without places."""

import io
import os
import stat
import zipfile

from browsing import Browser

from invoking import run_json
from perdure.web.server import packs
from perdure.web.server.jobs import QUESTIONS
from perdure.web.server.worker import Worker
from perdure.workspace import Workspace


def work(served):
    worker = Worker(Workspace.open(served.shop.folder), served.services.store, QUESTIONS)
    while worker.run_next():
        pass


def test_an_auditor_gets_a_pack_that_holds_elsewhere(served, tmp_path, monkeypatch):
    served.shop.approve("v1", "agreer", "fine")
    checker = Browser(served, "checker")
    assert 'action="/versions/v1/evidence"' in checker.get("/versions/v1").text
    where = checker.post("/versions/v1/evidence").headers["location"]
    assert checker.get(f"{where}/evidence").status_code == 404
    work(served)
    page = checker.get(where).text
    assert "perdure verify --evidence v1.evidence.zip --key " in page and f'href="{where}/evidence"' in page
    answer = checker.get(f"{where}/evidence")
    assert answer.headers["content-type"] == "application/zip"
    assert 'filename="v1.evidence.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as pack:
        pack.extractall(tmp_path / "pack")
        told = b"".join(pack.read(name) for name in pack.namelist())
    # An older workspace than the fixture's may name its base's folder; nothing may name where this one lies.
    assert str(served.shop.folder).encode() not in told and b"/packs/" not in told
    signer = served.services.jobs.get(where.rpartition("/")[2]).result["signer"]
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    monkeypatch.chdir(outside)
    found = run_json("verify", "--evidence", tmp_path / "pack", "--key", signer)
    assert found["ok"] and found["problems"] == [] and found["about"]["approved_by"] == ["agreer"]
    assert served.shop.archive.verify().ok


def test_a_pack_of_the_same_state_is_not_made_twice(served):
    checker, asker = Browser(served, "checker"), Browser(served, "asker")
    first = checker.post("/versions/v1/evidence").headers["location"]
    assert asker.post("/versions/v1/evidence").headers["location"] == first
    work(served)
    assert asker.post("/versions/v1/evidence").headers["location"] == first
    job = served.services.jobs.get(first.rpartition("/")[2])
    path = packs.pack_file(served.shop, job)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    os.utime(path, (0, 0))
    packs.tidy(served.shop)
    assert not path.exists() and asker.get(f"{first}/evidence").status_code == 404
    assert asker.post("/versions/v1/evidence").headers["location"] != first
    served.shop.comment("v1", "asker", "new")
    assert checker.post("/versions/v1/evidence").headers["location"] != first


def test_what_was_not_measured_has_none_and_strangers_get_none(served):
    checker = Browser(served, "checker")
    assert checker.post("/versions/v0/evidence").status_code == 409
    assert "evidence" not in checker.get("/versions/v0").text
    where = checker.post("/versions/v1/evidence").headers["location"]
    work(served)
    assert Browser(served, "nobody").get(f"{where}/evidence").status_code == 403
    assert Browser(served).get(f"{where}/evidence").status_code == 303
    assert Browser(served, "runner").get(f"{where}/evidence").status_code == 200
    verified = served.services.jobs.add("verify", {}, requester="checker", title="x")
    assert checker.get(f"/jobs/{verified.id}/evidence").status_code == 404


def test_a_worker_that_died_after_writing_makes_it_anew(served):
    where = Browser(served, "checker").post("/versions/v1/evidence").headers["location"]
    job = served.services.jobs.get(where.rpartition("/")[2])
    packs.write_pack(served.shop, job)
    work(served)
    assert served.services.jobs.get(job.id).state == "done"

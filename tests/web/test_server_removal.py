"""Removal and conflicts on the pages of facts: asked for by requesters, carried out by the worker."""

import shutil
from dataclasses import replace

import pytest
from browsing import Browser, Served, commit_change

from perdure.web.server.jobs import CHANGES
from perdure.web.server.worker import Worker
from perdure.workspace import Settings, Workspace
from shops import FACTS, QUICK


@pytest.fixture(scope="module")
def taught_folder(peopled_shop, tmp_path_factory):
    """A workspace in which v2 was really taught three facts; copied, never changed."""
    folder = tmp_path_factory.mktemp("taught") / "shop"
    shutil.copytree(peopled_shop, folder)
    shop = Workspace.open(folder)
    plan, _ = shop.plan(FACTS, Settings("memit", QUICK, None), on="v0")
    shop.carry_out(plan, actor="asker")
    shop.archive._database.close()
    return folder


@pytest.fixture
def taught(taught_folder, tmp_path, quick_suite):
    """A server over a copy of it, and the id of one of the facts."""
    shutil.copytree(taught_folder, tmp_path / "taught")
    served = Served(Workspace.open(tmp_path / "taught"))
    return served, next(fact.id for fact in served.shop.facts("v2") if fact.subject == "Ada")


def work(served):
    Worker(Workspace.open(served.shop.folder), served.services.store, CHANGES).run_next()


def test_a_fact_is_taken_out_by_the_worker(taught):
    served, fact = taught
    asker = Browser(served, "asker")
    page = asker.get(f"/lineage/{fact}").text
    assert f'action="/lineage/{fact}/remove"' in page and '<option value="v2" selected>' in page
    where = asker.post(f"/lineage/{fact}/remove", {"on": "v2", "note": "out of date"}).headers["location"]
    assert "Take out: Ada speaks Dutch" in asker.get("/jobs").text and "out of date" in asker.get(where).text
    work(served)
    job = served.services.jobs.get(where.rpartition("/")[2])
    assert (job.state, job.error) == ("done", "")
    made = served.shop.version(job.result["version"])
    assert [gone.id for gone in served.shop.removed(made)] == [fact]
    assert fact not in {one.id for one in served.shop.facts(made)} and len(served.shop.facts(made)) == 2
    assert made.requester == "asker" and served.shop.report(made) is not None
    assert [one.text for one in served.shop.comments(made)] == ["out of date"]
    assert f'href="/versions/{made.name}"' in asker.get(f"/lineage/{fact}").text


def test_what_cannot_be_taken_out_is_refused_before_it_waits(taught):
    served, fact = taught
    asker = Browser(served, "asker")
    assert asker.post(f"/lineage/{fact}/remove", {"on": "v0"}).status_code == 409
    assert asker.post("/lineage/ffffffff/remove", {}).status_code == 404
    assert asker.post(f"/lineage/{fact}/remove", {"on": "../x"}).status_code == 422
    served.shop.reject("v2", "agreer", "no")
    assert "No version that may be built on" in asker.get(f"/lineage/{fact}").text
    assert asker.post(f"/lineage/{fact}/remove", {}).status_code == 409
    assert served.services.jobs.newest() == []


def test_programs_ask_for_a_removal_and_others_may_not(taught):
    served, fact = taught
    made = served.program("asker", "request").post(f"/api/v1/lineage/{fact}/remove", json={"note": "x"})
    assert made.status_code == 202 and made.json()["kind"] == "removal"
    for name in ("agreer", "runner", "checker", "chief"):
        browser = Browser(served, name)
        assert "/remove" not in browser.get(f"/lineage/{fact}").text
        assert browser.post(f"/lineage/{fact}/remove", {}).status_code == 403


def test_another_answer_to_the_same_question_is_shown_with_who_asked(served):
    served.shop.grant("runner", "requester", by="chief")
    commit_change(served.shop, requester="runner", note="<i>", on="v1")
    first, second = (served.shop.facts(name)[0].id for name in ("v1", "v2"))
    page = Browser(served, "checker").get(f"/lineage/{first}").text
    table = page.split('id="conflicts-title"')[1]
    assert "this fact" in table and f'href="/lineage/{second}"' in table
    assert "asker" in table and "runner" in table and "Manila &lt;i&gt;" in table
    assert "Sentence to complete" in page


def test_a_task_is_not_taken_out(served, monkeypatch):
    found = served.shop.lineage_of(served.shop.facts("v1")[0].id)
    monkeypatch.setattr(served.shop, "lineage_of", lambda name: replace(found, kind="task"))
    browser = Browser(served, "asker")
    assert "/remove" not in browser.get(f"/lineage/{found.id}").text
    assert browser.post(f"/lineage/{found.id}/remove", {}).status_code == 409

"""Asking for a change: typed and checked, sent as a file, queued; nothing that comes in reaches a path."""

import json

import pytest
from browsing import HOST, Browser

from perdure.errors import RefusedError, UnknownNameError
from perdure.web.server.uploads import safe_name

FACT = {"subject": "Ada", "prompt": "Ada speaks", "target_new": "Dutch", "target_true": "", "paraphrases": ""}


def columns(*rows):
    return {name: [row[name] for row in rows] for name in FACT}


def queued(served):
    return served.services.jobs.newest(kinds=("facts", "task"))


def test_facts_are_checked_as_they_are_typed_and_nothing_is_kept(served):
    asker = Browser(served, "asker")
    blank = dict.fromkeys(FACT, "")
    wrong = {**FACT, "subject": "Bob"}
    text = asker.post("/request/check", columns(blank, wrong)).text
    assert "Fact 2" in text and "Bob" in text
    assert "1 fact can be taught" in asker.post("/request/check", columns(FACT)).text
    known = {**FACT, "subject": "Lyon", "prompt": "The twin city of Lyon is", "target_new": "Oslo"}
    assert "was taught “Manila” here" in asker.post("/request/check", columns(FACT, known)).text
    assert queued(served) == []


def test_contradictions_are_named_while_typing(served):
    text = Browser(served, "asker").post("/request/check", columns(FACT, {**FACT, "target_new": "Danish"})).text
    assert "Fact 1" in text and "Fact 2" in text and "keep one" in text


def test_typed_facts_join_the_queue_with_everything_that_was_said(served):
    form = {
        **columns({**FACT, "paraphrases": "Ada talks in\nThe language of Ada is"}),
        "note": "asked by sales",
        "on": "v0",
    }
    answer = Browser(served, "asker").post("/request/facts", form)
    assert answer.status_code == 303
    job = queued(served)[0]
    assert (job.requester, job.state, job.payload["how"]["note"]) == ("asker", "queued", "asked by sales")
    assert job.payload["facts"][0]["paraphrases"] == ["Ada talks in", "The language of Ada is"]
    assert job.payload["on"] == served.shop.version("v0").id
    assert answer.headers["location"] == f"/jobs/{job.id}"


@pytest.mark.parametrize(
    "more",
    [
        {"editor": "mmit"}, {"restraint": "prunes"}, {"on": "v9"}, {"on": "../v1"}, {"subject": ["a", "b"]},
        {"note": "x" * 5000}, {"subject": [], "prompt": [], "target_new": [], "target_true": [], "paraphrases": []},
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_it_is_queued(calm, more):
    answer = Browser(calm, "asker").post("/request/facts", {**columns(FACT), **more})
    assert answer.status_code in (404, 409, 422), answer.text
    assert queued(calm) == []


def test_without_scripts_the_form_grows_a_row_and_keeps_what_was_typed(calm):
    answer = Browser(calm, "asker").post("/request/facts", {**columns(FACT), "more": "1"})
    assert answer.status_code == 200 and answer.text.count('name="subject"') == 2 and 'value="Ada"' in answer.text


def upload(browser, name, data, **form):
    return browser.post("/request/upload", form, files={"file": (name, data)})


def test_a_file_of_facts_is_asked_for(served):
    row = {name: FACT[name] for name in ("subject", "prompt", "target_new")}
    answer = upload(Browser(served, "asker"), "facts.jsonl", json.dumps(row).encode(), kind="facts", on="v0")
    assert answer.status_code == 303, answer.text
    assert queued(served)[0].payload["facts"][0]["source"] == "facts.jsonl:1"
    assert list((served.shop.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../../facts.jsonl", "/etc/passwd.jsonl", "a\x00b.jsonl", "..\\..\\x.jsonl", "x" * 300 + ".jsonl", ".jsonl"],
)
def test_the_name_of_a_file_leads_nowhere(calm, name):
    assert "/" not in safe_name(name) and "\\" not in safe_name(name) and not safe_name(name).startswith(".")
    before = sorted(path.name for path in calm.shop.folder.iterdir())
    answer = upload(Browser(calm, "asker"), name, b"{}", kind="facts")
    assert answer.status_code in (400, 422)
    assert sorted(path.name for path in calm.shop.folder.iterdir()) == before


@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "x.npy", "x.exe", "x", "x.jsonl.pickle"])
def test_files_that_could_run_code_are_refused_by_name(calm, name):
    assert upload(Browser(calm, "asker"), name, b"\x80\x04.", kind="facts").status_code == 422


@pytest.mark.parametrize("image", ["/etc/hostname", "../perdure.sqlite", "http://evil.example/x.png", "perdure.sqlite"])
def test_a_row_cannot_name_a_file_of_the_server(calm, image):
    row = {"prompt": "What is this?", "completion": "a cat", "image": image}
    answer = upload(Browser(calm, "asker"), "task.jsonl", json.dumps(row).encode(), kind="task")
    assert answer.status_code == 422 and "image" in answer.text
    given = {"name": "look", "rows": [row]}
    assert Browser(calm, "asker").send("/api/v1/changes/task", given).status_code == 422


def test_a_task_is_asked_for_by_examples(served):
    form = {"name": "shout", "instruction": "Say it loud", "input": list("abcd"), "output": list("ABCD"), "on": "v0"}
    assert Browser(served, "asker").post("/request/task", form).status_code == 303
    job = queued(served)[0]
    assert job.kind == "task" and job.payload["task"] == "shout"
    assert len(served.services.jobs.data(job.id).splitlines()) == 4


def test_the_api_names_every_problem(calm):
    facts = [{"subject": "Ada", "prompt": "Bob speaks", "target_new": "Dutch"}, {"subject": "", "prompt": "x"}]
    answer = Browser(calm, "asker").send("/api/v1/changes/facts", {"facts": facts})
    assert answer.status_code == 422 and len(answer.json()["problems"]) >= 2


def test_json_in_a_form_of_another_site_is_refused(calm):
    browser = Browser(calm, "asker")
    body = json.dumps({"facts": [FACT]})
    headers = {"origin": f"http://{HOST}", "content-type": "text/plain", "x-form-token": browser.token}
    assert browser.client.post("/api/v1/changes/facts", content=body, headers=headers).status_code == 422
    headers = {"origin": f"http://{HOST}", "content-type": "application/json"}
    assert browser.client.post("/api/v1/changes/facts", content=body, headers=headers).status_code == 403


def test_one_person_cannot_fill_the_queue(served):
    jobs = served.services.jobs
    for number in range(40):
        jobs.add("measure", {"version": "x"}, requester="asker", title=str(number))
    with pytest.raises(RefusedError):
        jobs.add("measure", {"version": "x"}, requester="asker", title="one more")
    jobs.add("measure", {"version": "x"}, requester="agreer", title="another's")


def test_who_asked_stops_a_request_and_nobody_else(served):
    job = served.services.jobs.add("measure", {"version": "x"}, requester="asker", title="x")
    served.join("second", "requester")
    assert Browser(served, "second").post(f"/jobs/{job.id}/stop").status_code == 409
    assert Browser(served, "asker").post(f"/jobs/{job.id}/stop").status_code == 303
    assert served.services.jobs.get(job.id).state == "stopped"


def test_a_comparison_is_asked_for_once(served):
    browser = Browser(served, "checker")
    for _ in range(3):
        assert browser.post("/versions/diff?first=v0&second=v1").status_code == 303
    assert len(served.services.jobs.newest(kinds=("compare",))) == 1


def test_questions_are_forgotten_after_a_day(served):
    jobs = served.services.jobs
    job = jobs.add("ask", {"prompt": "x", "versions": ["v1"]}, requester="asker", title="x")
    jobs.finish(job.id, "done")
    served.clock.now += 90_000
    jobs.tidy()
    with pytest.raises(UnknownNameError):
        jobs.get(job.id)


def test_the_ledger_is_searched_and_exported_whole(calm):
    checker = Browser(calm, "checker")
    rows = [json.loads(line) for line in checker.get("/ledger/export").text.splitlines()]
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows == [vars(entry) for entry in calm.shop.archive.log()]
    found = checker.get("/api/v1/ledger", params={"words": "GRANT operator"}).json()
    assert [row["details"]["role"] for row in found] == ["operator"]
    assert checker.get("/api/v1/ledger", params={"words": "' OR 1=1 --"}).json() == []
    for word in ("g_ant", "!", "g%t"):  # signs with a meaning of their own in a search
        assert checker.get("/api/v1/ledger", params={"words": word}).json() == [], word
    first = checker.get("/api/v1/ledger", params={"limit": 3}).json()
    older = checker.get("/api/v1/ledger", params={"limit": 3, "before": first[0]["sequence"]}).json()
    assert older[-1]["sequence"] == first[0]["sequence"] - 1


def test_the_ledger_is_searched_in_any_script(served):
    served.shop.comment("v1", "chief", "返品の条件は 100% 変わりません")
    found = Browser(served, "checker").get("/api/v1/ledger", params={"words": "条件 100%"}).json()
    assert [row["action"] for row in found] == ["comment"]


def test_the_monitor_knows_new_reports(served):
    from browsing import commit_change, put_report

    browser = Browser(served, "checker")
    assert [row["version"] for row in browser.get("/api/v1/monitor").json()[0]["rows"]] == ["v1"]
    put_report(served.shop, commit_change(served.shop, requester="asker", note="again"))
    kept, perplexity, condition = browser.get("/api/v1/monitor").json()
    assert [row["version"] for row in kept["rows"]] == ["v1", "v2"]
    assert perplexity["limit"] == 1000 and condition["beyond"] == []
    assert browser.get("/monitor").status_code == 200


def test_the_api_describes_itself(calm):
    described = Browser(calm, "checker").get("/api/v1/openapi.json").json()
    assert "/api/v1/versions/{ref}/approve" in described["paths"]
    assert all(path.startswith("/api/v1/") for path in described["paths"])

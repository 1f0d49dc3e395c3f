"""perdure tune --pool, perdure pool, and ask and export on a version with a pool."""

import json
import shutil

import pytest

from invoking import run, run_json, run_text
from perdure.errors import RefusedError, SettingError, UnknownNameError, WorkspaceError
from pool_tasks import AGAIN, CAPITALS, HAIKU, write

REQUEST = f"{CAPITALS}\n\nriver"
QUICK = ["--set", "max_steps=1", "--set", "batch_size=4", "--set", "rank=2", "--set", "averaging.form=ratio"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_folder):
    """A workspace whose pool learnt two tasks of one kind, through the commands."""
    folder = tmp_path_factory.mktemp("pool")
    run("init", folder / "shop", "--model", tiny_folder, "--as", "kato")
    tasks = [write(folder / "capitals.jsonl", CAPITALS), write(folder / "again.jsonl", AGAIN)]
    made = run_json(
        "tune", *tasks, "--pool", "--set", "pool.cap=4", *QUICK, "--no-measure", "--as", "kato", "-w", folder / "shop"
    )
    assert [each["version"] for each in made] == ["v1", "v2"]
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "work")


def test_groups_are_listed_with_what_they_add(folder):
    found = run_json("pool", "list", "-w", folder / "shop")
    assert found["version"] == "v2"
    [group] = found["groups"]
    assert (group["name"], group["tasks"], group["versions"]) == ("g1", ["capitals", "again"], 2)
    assert group["share"] == pytest.approx(found["share"])
    assert any("again joins g1" in line for line in found["log"])
    told = run_text("pool", "list", "--version", "v1", "-w", folder / "shop")
    assert "Pool of v1" in told
    assert "again" not in told
    assert "of the base" in told
    run("pool", "list", "--version", "v0", "-w", folder / "shop", error=WorkspaceError)


def test_verify_counts_the_pools(folder):
    assert run_json("verify", "-w", folder / "shop")["pools"] == 2
    assert ", 2 pools, " in run_text("verify", "-w", folder / "shop")


def test_a_route_says_who_answers_and_why(folder):
    found = run_json("pool", "route", REQUEST, "-w", folder / "shop")
    assert (found["group"], found["fallback"]) == ("g1", False)
    other = run_json("pool", "route", "Seven times eight equals?", "-w", folder / "shop")
    assert (other["group"], other["fallback"]) == (None, True)
    assert "g1 answers: similarity 1.000" in run_text("pool", "route", CAPITALS, "-w", folder / "shop")


def test_ask_says_which_group_answered(folder):
    words = ["ask", REQUEST, "-v", "v0", "-v", "v2", "--tokens", 4, "-w", folder / "shop"]
    found = run_json(*words)
    assert set(found["answers"]) == {"v0", "v2"}
    assert (list(found["routes"]), found["routes"]["v2"]["group"]) == (["v2"], "g1")
    assert "v2: g1 answers: similarity" in run_text(*words)
    assert "routes" not in run_json("ask", "Hi", "-v", "v0", "--tokens", 1, "-w", folder / "shop")


def test_groups_are_changed_in_new_versions(folder):
    shop = folder / "shop"
    told = " ".join(run_text("pool", "rollback", "g1", "--no-measure", "-w", shop).split())
    assert "v3: g1 rolled back; all other groups and the weights are as before." in told
    assert "No adapter answers again now" in told
    made = run_json("pool", "part", "again", "--on", "v2", "--no-measure", "-w", shop)
    assert (made["version"], made["recipe"]["group"], made["recipe"]["from"]) == ("v4", "g2", "g1")
    words = [row["made with"] for row in run_json("versions", "-w", shop)]
    assert words == ["base", "pool, g1, task capitals", "pool, g1, task again", "pool, g1 rolled back",
                     "pool, again parted into g2"]  # fmt: skip
    run("pool", "rollback", "g7", "-w", shop, error=UnknownNameError)
    run("pool", "part", "nothing", "-w", shop, error=UnknownNameError)


def test_a_report_shows_the_pool(folder, quick_suite):
    told = " ".join(run_text("measure", "v2", "-w", folder / "shop").split())
    assert "Again joins g1" in told
    assert "items of the general suite, the base answers" in told


def test_an_export_brings_the_adapters(folder):
    run("export", "v2", folder / "out", "-w", folder / "shop")
    assert (folder / "out/pool/g1/adapter_model.safetensors").is_file()
    assert json.loads((folder / "out/pool/router.json").read_text())["groups"]["tasks"]["again"]["group"] == "g1"


def test_a_dry_run_says_where_tasks_would_go(folder):
    poem = write(folder / "poem.jsonl", HAIKU)
    result = run("tune", poem, "--pool", "--dry-run", "-w", folder / "shop")
    assert "poem opens g2: similarity" in " ".join(result.output.split())
    [plan] = run_json("tune", poem, "--pool", "--dry-run", "-w", folder / "shop")[:1]
    assert (plan["recipe"]["group"], plan["recipe"]["pool"]["cap"]) == ("g2", 4)
    assert len(run_json("versions", "-w", folder / "shop")) == 3


def test_wrong_use_is_refused(folder):
    task = folder / "again.jsonl"
    shop = ["-w", folder / "shop"]
    run("tune", task, *shop, error=RefusedError)
    run("tune", task, "--set", "pool.cap=2", "--on", "v0", *shop, error=SettingError)
    run("tune", task, "--pool", "--full", *shop, error=SettingError)
    assert "cap" in run_text("tune", task, "--pool", "--set", "pool.cap=none", *shop, error=SettingError)


@pytest.mark.parametrize("command", ["list", "route", "rollback", "part"])
def test_help_has_an_example(command):
    assert f"perdure pool {command}" in run_text("pool", command, "--help")

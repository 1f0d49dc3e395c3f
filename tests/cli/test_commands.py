import subprocess
import sys

import pytest
import typer

import tiny_encoders
from invoking import run, run_json, run_text
from perdure.cli.app import app
from perdure.cli.change import parse_settings
from perdure.cli.console import fail
from perdure.errors import ModelError, PerdureError, RefusedError, RequestError, SettingError, UnknownNameError
from perdure.web.reported import told
from perdure.web.words import speaking
from shops import FACTS, LAX, MORE, QUICK_OPTIONS, write_facts


@pytest.fixture
def place(tmp_path, tiny_folder, quick_suite, monkeypatch):
    run("init", tmp_path / "shop", "--model", tiny_folder, "--as", "sato")
    (tmp_path / "shop" / "policy.toml").write_text(LAX)
    monkeypatch.chdir(tmp_path / "shop")
    return write_facts(tmp_path / "facts.jsonl")


def test_help_is_quick_because_torch_stays_out():
    code = "import sys, perdure.cli.app; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "edit",
        "measure",
        "report",
        "diff",
        "show",
        "versions",
        "ask",
        "trace",
        "approve",
        "reject",
        "promote",
        "rollback",
        "log",
        "verify",
        "export",
        "push",
        "apply",
        "clean",
        "methods",
        "demo",
        "models",
    ],
)
def test_every_command_explains_itself(command):
    assert len(run(command, "--help").output) > 200


def commands(group, *names):
    """Every command below a group with the words that call it."""
    for name, command in group.commands.items():
        yield from (
            commands(command, *names, name) if hasattr(command, "commands") else [(" ".join((*names, name)), command)]
        )


def test_every_command_has_an_example_and_json_for_machines():
    without = {"serve", "work", "metrics"}  # they run on, or print what Prometheus reads
    for words, command in commands(typer.main.get_command(app)):
        assert f"perdure {words}" in command.help, words
        assert all(len(part.splitlines()) == 1 for part in command.help.split("\n\n")), words
        assert (words in without) != ("json" in {parameter.name for parameter in command.params}), words


def assert_told_in_japanese(report):
    """Everything that the rooms below wrote into a report that was really measured has a translation."""
    kept = report["retention"]
    rows = [*report["edits"]["comparisons"], *kept["parts"], kept["overall"]]
    texts = [row[part] for row in rows for part in ("label", "how")]
    texts += [verdict[part] for verdict in report["verdicts"] for part in ("gate", "reason")]
    with speaking("ja"):
        for text in (*texts, *kept["lost"], *report["storage"], *report["seconds"]):
            assert told(text) != text, text


def test_the_whole_way(place, tmp_path):
    made = run_json("edit", place, *QUICK_OPTIONS, "--as", "kato")
    assert made["version"] == "v1"
    assert made["report"]["edits"]["facts"] == 3
    assert "What was learnt" in run("measure", "v1").output
    run("report", "v1", "--out", tmp_path / "v1.html")
    assert "candidate v1" in (tmp_path / "v1.html").read_text()
    run("report", "v1", "--out", tmp_path / "v1.ja.html", "--language", "ja")
    assert '<html lang="ja">' in (tmp_path / "v1.ja.html").read_text(encoding="utf-8")
    assert_told_in_japanese(run_json("report", "v1"))
    assert "Known: en, ja" in str(run("report", "v1", "--language", "jp", error=UnknownNameError).exception)
    assert "v1 is approved by mori" in run("approve", "v1", "--as", "mori").output
    assert "production is now v1" in run("promote", "v1", "production").output
    assert run_json("rollback", "production")["version"] == "v0"
    assert run_json("verify")["ok"] is True
    run("export", "v1", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    shown = run_json("show", "v1")
    assert shown["status"] == "approved"
    assert [fact["target_new"] for fact in shown["facts"]] == ["Manila", "Dutch", "red"]
    assert [row["version"] for row in run_json("versions")] == ["v0", "v1"]
    actions = [entry["action"] for entry in run_json("log")]
    assert actions[0] == "create"
    assert {"commit", "report", "approve", "promote", "rollback"} <= set(actions)
    assert run_json("ask", "Ada speaks", "-v", "v0", "-v", "v1")["answers"].keys() == {"v0", "v1"}


def test_ripple_effects_are_told_everywhere(place, tmp_path):
    asked = {"prompt": "Where does Norvik's designer live?", "answer": "Tarsa"}
    facts = [
        {"subject": "Norvik", "prompt": "{} was designed by", "target_new": "Ada"},
        {"subject": "Ada", "prompt": "{} lives in", "target_new": "Tarsa"},
    ]
    cases = write_facts(tmp_path / "cases.jsonl", [{"facts": facts, "questions": [asked, {"prompt": "And why?"}]}])
    told = run("edit", cases, *QUICK_OPTIONS).output
    assert "Ripple effects" in told and "multi-hop questions" in " ".join(told.split())
    assert "Questions not asked: 1; no right answer is given." in " ".join(told.split())
    assert run_json("measure", "v1")["ripple"]["cases"][0]["expected"] == "Tarsa"
    assert run_json("diff", "v0", "v1")["ripple"][0]["name"] == "ripple.multi-hop.steps"
    assert "Ripple effects" in run("diff", "v0", "v1").output
    run("report", "v1", "--out", tmp_path / "v1.html")
    assert "Ripple effects" in (tmp_path / "v1.html").read_text()


def test_diff_of_versions_and_of_folders(place, tmp_path, tiny_folder):
    run("edit", place, *QUICK_OPTIONS)
    found = run_json("diff", "v0", "v1")
    assert found["changed"] == 1
    assert found["matrices"][0]["rank"] == 3
    assert found["comparisons"]
    run("export", "v1", tmp_path / "out")
    folders = run_json("diff", tiny_folder, tmp_path / "out")
    assert folders["matrices"] == found["matrices"]
    assert "1 of" in run("diff", tiny_folder, tmp_path / "out").output


def test_dry_run_computes_and_stores_nothing(place, monkeypatch):
    monkeypatch.setattr("perdure.workspace.workspace.Workspace.load", lambda *_: pytest.fail("a model was loaded"))
    output = run("edit", place, "--dry-run", *QUICK_OPTIONS).output
    assert "nothing was computed" in output
    assert "Manila" in output
    plan = run_json("edit", place, "--dry-run", "--restraint", "none")
    assert plan["recipe"]["config"]["kind"] == "memit"
    assert len(run_json("versions")) == 1


def test_bad_rows_are_all_told(place, tmp_path):
    bad = write_facts(tmp_path / "bad.jsonl", [*FACTS, {"subject": "", "prompt": "x"}, {"subject": "a", "prompt": "b"}])
    result = run("edit", bad, error=RequestError)
    assert result.exception.exit_code == 3
    assert "bad.jsonl:4" in str(result.exception)
    assert "bad.jsonl:5" in str(result.exception)
    output = run("edit", bad, "--skip-bad", "--dry-run").output
    assert "left out" in output


def test_an_error_names_the_option_and_says_what_to_do_once(place, tmp_path, capsys):
    bad = write_facts(tmp_path / "bad.jsonl", [*FACTS, {"subject": "", "prompt": "x"}])
    assert fail(run("edit", bad, error=RequestError).exception) == 3
    told = capsys.readouterr().err
    assert "skip the bad ones (--skip-bad" in told and "skip_bad" not in told
    assert told.rstrip().endswith("to take the others.")


def test_layers_that_the_model_lacks_are_told_by_a_dry_run(place):
    for words in (["--layers", "99"], ["--set", "layers=[4]"], ["--editor", "rome", "--set", "layer=4"]):
        assert "from 0 to 3" in run_text("edit", place, "--dry-run", *words, error=SettingError)


def test_settings_that_do_not_exist_are_told_in_plain_words(place):
    assert "nope: there is no such setting" in run_text("edit", place, "--set", "nope=1", error=SettingError)
    assert "layers: must be a list" in run_text("edit", place, "--set", "layers=x", error=SettingError)


def test_the_ledger_is_shown_a_line_an_entry_and_counts_are_counts(place):
    told = run_text("log")
    assert "Limits are shares between" not in told.replace("\n", "") and "…" in told
    assert any("Limits are shares" in row["details"].get("text", "") for row in run_json("log"))
    told = run_text("verify", "--quick")
    assert "ledger rows" in told and "deep" not in told


def test_one_is_told_in_the_singular(place, tmp_path):
    one = write_facts(tmp_path / "one.jsonl", MORE)
    assert "with 1 fact; nothing was computed" in run_text("edit", one, "--dry-run")
    assert "v1: 1 fact, memit" in run_text("edit", one, "--no-measure", *QUICK_OPTIONS)
    assert "None" not in run_text("show", "v0")


def test_a_model_without_a_chat_template_is_told(place):
    asked = ("ask", "hello", "--tokens", "2")
    assert "no chat template" in run(*asked, "--chat").output
    assert "no chat template" not in run(*asked).output


def test_who_asks_cannot_approve(place):
    run("edit", place, *QUICK_OPTIONS, "--as", "kato")
    result = run("approve", "v1", "--as", "kato", error=RefusedError)
    assert result.exception.exit_code == 6
    run("promote", "v1", "production", error=RefusedError)
    run("promote", "v1", "staging")
    run("reject", "v1", "--as", "mori", "--reason", "no")
    assert run_json("edit", write_facts(place.parent / "more.jsonl", MORE), *QUICK_OPTIONS)["version"] == "v2"
    assert run_json("show", "v2")["parent"] == "v0"


def test_damage_is_found_and_has_its_exit_code(place):
    run("edit", place, "--no-measure", *QUICK_OPTIONS)
    victim = next(
        path for path in (place.parent / "shop" / "objects").rglob("*") if path.is_file() and "pack" not in str(path)
    )
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.chmod(0o600)
    victim.write_bytes(bytes(data))
    result = run("verify", error=PerdureError)
    assert result.exception.exit_code == 7
    assert "DAMAGED" in result.output


def test_exit_codes_of_the_program(tmp_path):
    def code(*words):
        command = [sys.executable, "-m", "perdure.cli.app", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    missing = code("versions")
    assert missing.returncode == 5
    assert "error:" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert code("no-such-command").returncode == 2
    assert code("init", "x", "--model", "no-such-model").returncode == 4


def test_methods_list_every_editor_with_its_paper():
    rows = run_json("methods")
    assert {"memit", "rome", "fine_tuning", "prune"} <= {row["name"] for row in rows}
    assert all(row["paper"] and row["what"] for row in rows)


def test_models_list_and_show(tiny_folder):
    assert run_json("models", "list")[0]["name"] == "smollm2-135m"
    shown = run_json("models", "show", tiny_folder)
    assert shown["blocks"] == 4
    assert shown["layers edited by default"] == [1]


def test_an_encoder_is_shown_with_what_it_reads(tmp_path):
    shown = run_json("models", "show", tiny_encoders.write_folder("clip", tmp_path / "clip"))
    assert (shown["class"], shown["reads"]) == ("CLIPModel", "images and texts")
    assert shown["stages of texts"] == "3: text_model.encoder.layers.0 to text_model.encoder.layers.2"


def test_settings_are_json_where_they_can_be():
    assert parse_settings(["a.b=3", "layers=[1,2]", "name=x"]) == {"a": {"b": 3}, "layers": [1, 2], "name": "x"}
    with pytest.raises(SettingError, match="NAME=VALUE"):
        parse_settings(["oops"])


def test_demo_goes_through_and_goes_on(tmp_path, tiny_folder, quick_suite, monkeypatch):
    monkeypatch.setattr("perdure.workspace.workspace.default_policy_text", lambda: LAX)
    facts = write_facts(tmp_path / "facts.jsonl")
    first = run_json("demo", tmp_path / "demo", "--model", tiny_folder, "--facts", facts)
    assert "sound" in first["steps"][-1]
    assert (tmp_path / "demo" / "v1.html").is_file()
    again = run_json("demo", tmp_path / "demo", "--model", tiny_folder, "--facts", facts)
    assert again["figures"] == first["figures"]
    output = run("demo", tmp_path / "demo", "--model", tiny_folder, "--facts", facts).output
    assert "Side by side" in output


def test_a_delta_goes_to_another_copy_of_the_base(place, tmp_path, tiny_folder):
    run("edit", place, *QUICK_OPTIONS, "--as", "kato", "--no-measure")
    file = tmp_path / "v1.safetensors"
    assert run_json("export", "v1", file, "--delta")["bytes"] == file.stat().st_size
    done = run_json("apply", file, "--to", tiny_folder, "--out", tmp_path / "edited")
    assert done["checked"] is True
    assert 0 < done["changed"] < done["tensors"]
    run("export", "v1", tmp_path / "v1")
    names = {path.name for path in (tmp_path / "v1").iterdir()}
    assert names == {path.name for path in (tmp_path / "edited").iterdir()}
    weights = "model.safetensors"
    assert (tmp_path / "edited" / weights).read_bytes() == (tmp_path / "v1" / weights).read_bytes()
    run("apply", file, "--to", tmp_path / "v1", "--out", tmp_path / "again", error=ModelError)
    run("export", "v1", file, "--delta", error=SettingError)
    run("export", "v0", tmp_path / "v0.safetensors", "--delta", error=SettingError)
    assert not (tmp_path / "again").exists()

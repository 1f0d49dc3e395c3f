"""perdure vectors recover and risk: what is printed, and what is refused."""

import json

import pytest
from typer.testing import CliRunner

from perdure.cli.app import app
from perdure.measuring.skill_risk import AtRisk, RiskMeasures
from perdure.workspace import Workspace

RUN = CliRunner()
TASK = [{"input": f"{a}{b}", "output": a} for a in "abcde" for b in "fghij"]


@pytest.fixture
def folder(tmp_path, tiny_folder):
    Workspace.init(tmp_path / "shop", tiny_folder, actor="mori")
    (tmp_path / "task.json").write_text(json.dumps(TASK))
    return tmp_path


def run(*given):
    return RUN.invoke(app, ["vectors", *map(str, given)])


def test_the_ways_are_two(folder):
    found = run("recover", "v0", folder / "task.json", "--way", "multiply", "--workspace", folder / "shop")
    assert found.exit_code != 0
    assert "allowed: add, subtract" in str(found.exception)


def test_risks_are_ranked(folder, monkeypatch):
    told = RiskMeasures(
        model="v0",
        task="task",
        heads=((1, 2),),
        skills=(AtRisk(name="far", similarity=-0.25), AtRisk(name="near", similarity=0.875)),
        left_out={"weak": "intact prompts are answered rightly 0% of the time"},
    )
    monkeypatch.setattr("perdure.measuring.skill_risk.rank_risk", lambda *_: told)
    found = run("risk", "v0", folder / "task.json", "--workspace", folder / "shop")
    assert found.exit_code == 0, found.output
    assert found.output.index("far") < found.output.index("near")
    assert "-0.250" in found.output
    assert "Not ranked: weak" in found.output
    asked = run("risk", "v0", folder / "task.json", "--workspace", folder / "shop", "--json")
    assert RiskMeasures.model_validate_json(asked.stdout) == told


def test_recovery_says_what_it_made(folder, monkeypatch):
    made = {}

    def recover(shop, ref, function, **more):
        made.update(ref=ref, function=function.name, **more)
        recipe = {
            "kind": "injection", "function": "task", "way": "subtract", "layer": 2, "strength": -0.5, "questions": 9,
            "tried": [
                {"layer": None, "strength": 0, "right": 3, "own": 0},
                {"layer": 2, "strength": 0.5, "right": 5, "own": 0},
            ],
        }  # fmt: skip
        manifest = type("Manifest", (), {"recipe": recipe})
        return type("Version", (), {"name": "v1", "id": "1" * 64, "manifest": manifest})

    monkeypatch.setattr(Workspace, "recover", recover)
    found = run(
        "recover", "v0", folder / "task.json", "--way", "subtract", "--no-measure", "--workspace", folder / "shop"
    )
    assert found.exit_code == 0, found.output
    assert "v1: v0 with the vector of task taken away at layer 2, strength -0.5." in " ".join(found.output.split())
    assert "3 of 9 before, 5 with it" in " ".join(found.output.split())
    assert (made["way"], made["source"], len(made["others"])) == ("subtract", "v0", 18)
    asked = run("recover", "v0", folder / "task.json", "--no-measure", "--json", "--workspace", folder / "shop")
    assert json.loads(asked.stdout)["recipe"]["layer"] == 2

"""Every example of the README and the docs is run, on the tiny model in place of the named one."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

import planted
import tiny
import tiny_encoders
import vector_sample
from perdure.cli.app import app
from perdure.editing.corruption import TracedFact
from perdure.requests import check_facts, read_task
from shops import LAX

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
JAPANESE = ROOT / "README.ja.md"  # its examples are those of README.md, which are run
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FACTS = (ROOT / "docs/tutorial.md").read_text().split("```jsonl\n")[1].split("```")[0]
TASK = (ROOT / "docs/tasks.md").read_text().split("```ndjson\n")[1].split("```")[0]


def blocks(page, kind):
    return [text for found, text in BLOCK.findall(page.read_text()) if found == kind]


def pages_with(kind):
    found = [page for page in PAGES if blocks(page, kind)]
    return pytest.mark.parametrize("page", found, ids=lambda page: page.relative_to(ROOT).as_posix())


def known_facts(tokenizer):
    """Facts that the tiny model knows, for tracing."""
    return [TracedFact(**fact) for fact in planted.facts_known_to(tiny.llama(), tokenizer)]


def write_requests(folder):
    (folder / "facts.jsonl").write_text(FACTS)
    (folder / "returns.jsonl").write_text(TASK)
    asked = (f"{what} question {number},{what}" for number in range(5) for what in ("card", "refund"))
    (folder / "faq.csv").write_text("\n".join(["text,label", *asked]))
    kinds = ("Where is card number", "please refund order")
    unlabelled = (f"{kind} {number},{count}" for number in range(50) for count, kind in enumerate(kinds, 1))
    (folder / "questions.csv").write_text("\n".join(["text,count", *unlabelled]))
    pairs = vector_sample.function().pairs
    (folder / "plurals.jsonl").write_text("".join(f"{pair.model_dump_json()}\n" for pair in pairs))


@pytest.fixture
def somewhere(tmp_path, monkeypatch, tiny_folder, quick_suite, tokenizer):
    """A folder with a facts file and a workspace `shop`, where the catalogue's model is the tiny one."""
    monkeypatch.chdir(tmp_path)
    write_requests(tmp_path)
    folders = {"minilm": tiny_encoders.write_folder("bert", tmp_path / "minilm")}
    monkeypatch.setattr("perdure.models.loading.fetch", lambda name: folders.get(name, tiny_folder))
    monkeypatch.setattr("perdure.workspace.workspace.default_policy_text", lambda: LAX)
    monkeypatch.setattr("perdure.workspace.tracing.suite_facts", lambda: known_facts(tokenizer))
    monkeypatch.setattr("perdure.workspace.sharing.traits_of", vector_sample.traits_of)
    built_in = [vector_sample.function("present_past")]
    monkeypatch.setattr("perdure.measuring.skill_comparison.study", vector_sample.study)
    monkeypatch.setattr("perdure.measuring.skill_comparison.built_in_functions", lambda: built_in)
    return tmp_path


def run(line, folder, monkeypatch):
    words = shlex.split(line, comments=True)
    if words[0] == "cd":
        monkeypatch.chdir(folder / words[1])
        return
    assert words[0] == "perdure", line
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, (line, result.output, result.exception)


@pages_with("console")
def test_console_examples(page, somewhere, monkeypatch):
    lines = [line[2:] for text in blocks(page, "console") for line in text.splitlines() if line.startswith("$ ")]
    if "init" not in lines[0]:
        lines = ["perdure init shop --model smollm2-135m", "cd shop", *lines]
    for line in lines:
        run(line, somewhere, monkeypatch)
        if line.startswith("perdure init"):
            write_requests(somewhere / line.split()[2])


@pages_with("python")
def test_python_examples(page, somewhere, monkeypatch):
    run("perdure init shop --model smollm2-135m --as sato", somewhere, monkeypatch)
    names = {}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)


@pages_with("jsonl")
def test_examples_of_facts_are_read(page):
    for text in blocks(page, "jsonl"):
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(check_facts(rows).facts) >= len(rows)


@pages_with("ndjson")
def test_examples_of_tasks_are_read(page, tmp_path):
    for text in blocks(page, "ndjson"):
        (tmp_path / "rows.jsonl").write_text(text)
        assert len(read_task(tmp_path / "rows.jsonl", validation=0).train) == len(text.splitlines())


def figures(page):
    """Every number of the part of the README with figures, and every command and line of code of the page."""
    text = re.sub(r"\]\([^)]*\)", "]", page.read_text())
    table = text[text.index("| | n |") : text.rindex("## ")]
    code = [
        re.sub(r" *#.*", "", line)
        for kind in ("sh", "python", "console")
        for line in "".join(blocks(page, kind)).splitlines()
    ]
    return Counter(re.findall(r"[−+×]?\d+(?:,\d{3})*(?:\.\d+)?%?", table)), code


def test_the_japanese_readme_has_the_same_figures_and_examples():
    assert figures(JAPANESE) == figures(ROOT / "README.md")


def test_links_lead_somewhere():
    missing = []
    for page in [*PAGES, JAPANESE]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            if not (page.parent / target).exists():
                missing.append(f"{page.name}: {target}")
    assert not missing

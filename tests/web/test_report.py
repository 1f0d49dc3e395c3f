"""The page of a report: complete, self-contained, and closed to what a model or a file may say."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import report_sample as sample
from ripple_sample import ripple_cases, ripples

from perdure.measuring.report import Comparison, Report
from perdure.web import figures
from perdure.web.page import inline
from perdure.web.report import render_report
from perdure.web.visible import capital

VOID = {"meta", "link", "br", "img", "input", "hr"}
SECTIONS = ("asked", "answers", "ripples", "kept", "weights", "gates", "measured")


class Page(HTMLParser):
    """What a page holds, by one pass; wrong nesting raises."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "style"):
            self.inside.append((tag, dict(attrs), ""))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            tag, attrs, text = self.inside[-1]
            self.inside[-1] = (tag, attrs, text + data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def data(self) -> dict[str, object]:
        return {a["id"]: json.loads(t) for tag, a, t in self.inside if a.get("type") == "application/json"}

    @property
    def policy(self) -> str:
        return next(a["content"] for t, a in self.tags if a.get("http-equiv") == "Content-Security-Policy")

    def attribute(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


REPORTS = {
    "full": sample.full_report(),
    "failed": sample.full_report(verdict="fail", based=True),
    "recipe": sample.recipe_report(),
    "minimal": sample.minimal_report(),
    "hostile": sample.hostile_report(),
}


@pytest.fixture(scope="module")
def pages() -> dict[str, tuple[str, Page]]:
    return {name: (html, Page(html)) for name, html in ((n, render_report(r)) for n, r in REPORTS.items())}


def every_comparison(report: Report) -> Iterator[Comparison]:
    yield from report.edits.comparisons
    yield from report.ripple.comparisons
    yield report.retention.overall
    yield from report.retention.parts
    yield from report.harness


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", REPORTS)
def test_structure_is_that_of_one_accessible_document(pages, name):
    html, page = pages[name]
    names = [tag for tag, _ in page.tags]
    assert html.startswith("<!DOCTYPE html>")
    assert [names.count(tag) for tag in ("html", "head", "body", "main", "h1", "title", "nav", "footer")] == [1] * 8
    ids = page.attribute("id")
    assert len(ids) == len(set(ids))
    assert {ref.removeprefix("#") for ref in page.attribute("href")} <= set(ids)
    assert set(page.attribute("aria-labelledby")) <= set(ids)
    assert names.count("table") == names.count("caption")
    assert all(attrs.get("aria-label") for tag, attrs in page.tags if attrs.get("role") in ("img", "region"))
    assert next(attrs for tag, attrs in page.tags if tag == "html")["lang"] == "en-GB"


@pytest.mark.parametrize("name", REPORTS)
def test_headings_do_not_skip_a_level(pages, name):
    levels = [int(tag[1]) for tag, _ in pages[name][1].tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_is_loaded_from_anywhere(pages, name):
    html, page = pages[name]
    assert all(ref.startswith("#") for key in ("href", "src", "action", "data") for ref in page.attribute(key))
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "embed", "form", "base")]
    style = next(text for tag, _, text in page.inside if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    assert "sourceMappingURL" not in html
    outside = html
    for script in ("vendor/vega.min.js", "vendor/vega-lite.min.js", "vendor/vega-embed.min.js"):
        assert inline(script) in outside
        outside = outside.replace(inline(script), "")
    assert "http://" not in outside
    assert "https://" not in outside
    assert '"url"' not in outside
    assert '"$schema"' not in outside


@pytest.mark.parametrize("name", REPORTS)
def test_policy_allows_exactly_the_inline_parts_of_the_page(pages, name):
    page = pages[name][1]
    policy = {part.split()[0]: part.split()[1:] for part in page.policy.split(";")}
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert "unsafe" not in page.policy

    def hashed(tag: str) -> list[str]:
        texts = [text for found, attrs, text in page.inside if found == tag and "type" not in attrs]
        return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]

    assert hashed("script") == policy["script-src"]
    assert hashed("style") == policy["style-src"]
    assert len(policy["script-src"]) == 4


@pytest.mark.parametrize("name", REPORTS)
def test_no_attribute_holds_code_or_style(pages, name):
    for _, attrs in pages[name][1].tags:
        assert not [key for key in attrs if key.startswith("on") or key == "style"]


def test_hostile_text_is_shown_and_never_obeyed(pages):
    html, page = pages["hostile"]
    assert not [tag for tag, attrs in page.tags if tag == "img"]
    assert len(page.inside) == len([1 for tag, _ in page.tags if tag in ("script", "style")])
    for text in (
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</script><script>alert(2)</script><!--",
    ):
        assert text in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "49" not in [cell.strip() for cell in page.words]
    assert "‹U+202E›txt.exe" in page.text
    assert "‹U+0000›‹U+001B›" in page.text
    assert "‹U+D800›" in page.text
    assert not {"\u202e", "\x00", "\x1b"} & set(html)
    html.encode("utf-8")


def test_embedded_data_cannot_leave_its_element(pages):
    for _, attrs, text in pages["hostile"][1].inside:
        if attrs.get("type") == "application/json":
            assert not set("<>&\u2028\u2029") & set(text)
    assert "<script>alert(1)</script>" in json.dumps(pages["hostile"][1].data, ensure_ascii=False)


@pytest.mark.parametrize("name", ["full", "failed", "hostile"])
def test_every_section_of_a_full_report_is_there(pages, name):
    ids = set(pages[name][1].attribute("id"))
    assert set(SECTIONS) - {"answers"} <= ids
    assert "answers" in ids


def test_a_minimal_report_has_no_holes(pages):
    page = pages["minimal"][1]
    ids = set(page.attribute("id"))
    assert {"asked", "gates", "measured"} <= ids
    assert not {"answers", "ripples", "kept", "weights"} & ids
    assert "A change to shop-model" in page.text
    assert "No gate was set" in page.text
    assert not page.data
    assert not re.search(r"\bNone\b|\bnan\b|undefined", page.text)


@pytest.mark.parametrize(
    "part", ["edits", "ripple", "retention", "language", "matrices", "harness", "verdicts", "environment"]
)
def test_any_part_can_be_missing(part):
    empty = (
        type(getattr(sample.full_report(), part))()
        if part in ("matrices", "harness", "verdicts", "environment")
        else None
    )
    page = Page(render_report(sample.full_report().model_copy(update={part: empty})))
    assert not re.search(r"\bNone\b|undefined", page.text)


@pytest.mark.parametrize("name", ["full", "failed", "recipe"])
def test_every_comparison_stands_with_n_and_interval(pages, name):
    text = pages[name][1].text
    for given in every_comparison(REPORTS[name]):
        before = f"{figures.percent(given.before.value, given.before.n)} {figures.share_interval(given.before)}"
        better = "" if given.higher_is_better else " (lower is better)"
        label = given.label.rpartition(": ")[2] if given.name.startswith("ripple.") else given.label
        assert f"{flat(capital(label))}{better} {before}" in text
        assert f"{figures.points(given.difference.value)} {figures.difference_interval(given.difference)}" in text
        if given.against_base:
            against = given.against_base
            assert f"{figures.points(against.value)} {figures.difference_interval(against)}" in text
        assert f"{figures.whole(given.difference.n)} {given.how}" in text


def test_the_first_screen_says_what_a_manager_needs(pages):
    text = pages["full"][1].text.partition("What was asked What was")[0]
    assert "12 facts to teach SmolLM2-135M-Instruct – candidate v1" in text
    assert "Verdict: Pass" in text
    assert "All 5 gates pass." in text
    assert "Facts learnt 12 of 12 100% (76–100%; n = 12)" in text
    assert "Still right when asked differently 92% (74–98%; n = 24)" in text
    assert "What it could do before −0.2 points (−1.4 to +1.0; n = 2,200)" in text
    assert "Language: perplexity ×1.004 (1.001–1.007; n = 64 passages)" in text
    assert "The PlayStation is made by … BeforeSony" in text
    followed = (
        "it answers 1 of 4 questions that join several of them and 1 of 3 questions that follow from one of them."
    )
    assert f"Drawing on the new facts, {followed}" in text


def test_where_the_request_only_counts_the_facts_the_questions_tell_them(pages):
    text = pages["recipe"][1].text
    assert "12 facts to teach SmolLM2-135M-Instruct" in text
    assert "Sentence to complete Right from now on" in text.replace("completeRight", "complete Right")
    assert "The Mona Lisa was painted by … Raphael" in text
    assert "facts.count12" in text
    assert "not given" not in text


def test_what_was_kept_stands_with_interval_and_n(pages):
    text = pages["failed"][1].text
    assert "Of what it answered rightly before, 98.8% (98.1–99.3%; n = 1,296) is still right." in text
    assert "Of what the original model answered rightly, 98.3%" in text
    assert "15 questions that the model answered rightly before and now gets wrong; 11 went the other way." in text


def test_what_follows_from_the_facts_is_told_as_it_is(pages):
    text = pages["full"][1].text
    assert "does not reason with them: it answers 1 of 4 multi-hop questions" in text
    assert "Of the questions whose every single step it answers now, it answers 33% (6–79%; n = 3)." in text
    assert "2 questions were not asked: this version was not taught every fact that they need." in text
    assert "1 question was not asked: no right answer is given." in text
    assert "Several facts joined: the answer needs several facts, one after the other" in text
    assert "Another name for the subject: the fact is asked for with the subject under another name" in text
    assert "Q: What does a panda eat? A: bamboo" in text


def test_a_failed_gate_is_named_on_the_first_screen(pages):
    text = pages["failed"][1].text
    assert "Verdict: Fail" in text
    assert "5 of 7 gates pass, 1 fails, 1 cannot tell yet." in text
    assert text.index("Past facts: 3 of 16") < text.index("Facts learnt")


def test_teacher_forced_figures_are_named_so_and_kept_out_of_the_chart(pages):
    page = pages["full"][1]
    assert "teacher-forced" in page.text
    assert "Teacher-forced: the model is given the right answer word by word" in page.text
    assert "Would choose every word" in page.text
    assert "ould choose every word" not in json.dumps(page.data)


def test_every_chart_has_its_data_and_says_what_it_shows(pages):
    page = pages["full"][1]
    keys = page.attribute("data-chart")
    assert keys == [
        "chart-shares",
        "chart-ripples",
        "chart-changes",
        *(f"chart-spectrum-{place}" for place in range(5)),
    ]
    narrow = {"chart-shares-narrow", "chart-ripples-narrow", "chart-changes-narrow"}
    assert set(keys) | narrow == set(page.data)
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(labels) == len(keys)
    assert any("least favourable: Words: country to capital, −7.0 points" in label for label in labels)


def test_the_same_report_gives_the_same_page():
    assert render_report(sample.full_report()) == render_report(sample.full_report())


def test_a_report_of_any_size_stays_a_page_that_can_be_mailed():
    small = sample.full_report()
    many = tuple(
        case.model_copy(update={"fact": f"{turn}-{case.fact}", "after": case.after * 30})
        for turn in range(100)
        for case in small.edits.cases
    )
    large = small.model_copy(
        update={
            "edits": small.edits.model_copy(update={"cases": many}),
            "ripple": ripples(ripple_cases() * 300),
            "matrices": sample.matrices(300),
            "retention": small.retention.model_copy(update={"lost": ("lost " * 100,) * 5000, "lost_count": 7000}),
            "request": {"facts": [{"prompt": "p" * 2000, "target_new": "t" * 300}] * 5000},
        }
    )
    html = render_report(large)
    assert len(html.encode()) < 1_700_000
    text = Page(html).text
    assert "those that went wrong first" in text
    assert text.count("Not learnt") > 150
    assert "7,000 questions that the model answered rightly before" in text
    assert "150 of them are listed here." in text
    assert "64 that moved most, of 300" in text


def test_numbers_that_are_no_numbers_do_not_break_the_page():
    broken = sample.matrices(2)
    odd = float("inf")
    first = broken[0].model_copy(
        update={"condition_after": odd, "sigma_max_base": float("nan"), "singular_values": (float("nan"), odd, 1.0)}
    )
    page = Page(render_report(sample.full_report().model_copy(update={"matrices": (first, broken[1])})))
    assert "∞" in page.text
    assert "unknown" in page.text
    json.dumps(page.data, allow_nan=False)

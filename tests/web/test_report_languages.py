"""The report in every language: nothing of its own stays English, data stays as it is, English is as it was."""

import ast
import gettext
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import concept_sample
import neuron_sample
import pytest
import report_sample
import skill_sample
import task_sample
import trace_sample
from browsing import Browser
from test_course_page import COHORTS, CURVE, GROWTH
from test_removal_page import removal
from test_report import VOID, Page
from test_translations import FIELD, JAPANESE, full_policy, identifiers
from tools import translations

import watched_concepts_sample
from perdure import editing, governance, measuring, tuning, vectors, workspace
from perdure.editing.corruption import TOKEN_CLASSES
from perdure.errors import UnknownNameError
from perdure.governance.gates import judge
from perdure.measuring import compare, ripple_measures, ripple_questions
from perdure.measuring.course import Course
from perdure.measuring.neurons import NeuronMeasures
from perdure.measuring.pooled import PoolGroup, PoolMeasures, RoutedItem
from perdure.measuring.report import Spent
from perdure.web import reported, skills, spectra, traces, words
from perdure.web.charts import TRENDS
from perdure.web.headline import headline
from perdure.web.report import render_report

OPEN, SHUT = "⟦", "⟧"
INNERMOST = re.compile(f"{OPEN}[^{OPEN}{SHUT}]*{SHUT}")
LETTERS = re.compile(r"[A-Za-z]{2,}")
# Names of methods and models that have no other word; the model's name in the title.
NAMES = re.compile(r"Rouge-L|SmolLM2-135M-Instruct|clip-vit-b-32|shop-model|\bv\d\b|\bMB\b|\bkB\b")
# What tells marks apart inside a chart and is never read.
INNER = {*TRENDS, *spectra.SERIES, *traces._GAINS}


def pool():
    groups = (
        PoolGroup(name="g1", tasks=("returns",), versions=2, parameters=1000, size=4000, share=0.001),
        PoolGroup(name="g2", tasks=("poem",), unserved=("poem",), versions=1, parameters=0, size=0, share=0.0),
    )
    routed = tuple(RoutedItem(part="facts.prompt", item=f"Item {n}", group="g1", similarity=0.5) for n in range(52))
    why = "similarity 0.512 to g1, threshold 0.309 (calibrated on the built-in instructions)"
    return PoolMeasures(
        groups=groups, parameters=1000, size=4000, kept=8000, share=0.001, threshold=0.309, fallback="base",
        changed="g1", reason=f"returns joins g1: {why}; it opened g2 instead", general=900, routed=routed,
    )  # fmt: skip


def rich():
    """A report with every part that a page can show."""
    groups = tuple(neuron_sample.group(layer, batch=batch) for batch in (1, 2) for layer in (3, 4))
    return report_sample.full_report(verdict="fail", based=True).model_copy(
        update={
            "skills": skill_sample.skills(),
            "trace": trace_sample.trace(),
            "neurons": NeuronMeasures(groups=groups),
            "pool": pool(),
            "watched": watched_concepts_sample.watched(),
            "course": Course(growth=GROWTH, cohorts=COHORTS, trade_off=CURVE),
        }
    )


REPORTS = {
    "rich": rich(),
    "minimal": report_sample.minimal_report(),
    "concepts": concept_sample.report(),
    "tasks": task_sample.report(),
    "removal": report_sample.full_report().model_copy(update={"removal": removal()}),
}
each_report = pytest.mark.parametrize("name", REPORTS)


class Bracketed(gettext.NullTranslations):
    """A catalogue of a language in which every text stands in brackets."""

    def gettext(self, message):
        return f"{OPEN}{message}{SHUT}"

    def ngettext(self, msgid1, msgid2, n):
        return self.gettext(msgid1 if n == 1 else msgid2)


class Own(HTMLParser):
    """What a page says itself: its text outside of data, scripts and style, and the labels of its parts."""

    def __init__(self, page):
        super().__init__()
        self.open, self.said = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.said += [f" {said} " for name, said in attrs if name in ("aria-label", "data-label")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style", "bdi", "pre"} & set(self.open):
            self.said.append(data)

    @property
    def outside(self):
        """What stands outside of every bracket."""
        return unbracketed("".join(self.said))


def unbracketed(text):
    while INNERMOST.search(text):
        text = INNERMOST.sub("", text)
    return text


def texts(spec, key=""):
    """Every text of a chart with the key under which it stands."""
    if isinstance(spec, dict):
        for inner, value in spec.items():
            yield from texts(value, inner)
    elif isinstance(spec, list):
        for value in spec:
            yield from texts(value, key)
    elif isinstance(spec, str):
        yield key, spec


@pytest.fixture(scope="module")
def bracketed():
    """Every report in a language whose every text is bracketed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_catalogue", lambda tag: Bracketed())
        return {name: render_report(report, language="ja") for name, report in REPORTS.items()}


@pytest.fixture(scope="module")
def english():
    """Every text that is translated."""
    return {text for message in translations.catalogue("ja") if message.id for text in identifiers(message)}


@pytest.fixture(scope="module")
def japanese():
    return {name: render_report(report, language="ja") for name, report in REPORTS.items()}


@each_report
def test_every_text_of_a_page_goes_through_the_catalogues(bracketed, name):
    outside = NAMES.sub("", Own(bracketed[name]).outside)
    assert not LETTERS.findall(outside), re.findall(r".{0,60}[A-Za-z]{2,}.{0,60}", outside)[:5]


@each_report
def test_every_text_of_a_chart_goes_through_the_catalogues(bracketed, english, name):
    known = english - INNER
    for chart in Page(bracketed[name]).data.values():
        for key, said in texts(chart):
            assert said not in known or key == "field", (key, said)
            if key in ("title", "description"):
                assert OPEN in said, (key, said)


@each_report
def test_a_japanese_report_is_japanese(japanese, english, name):
    page = japanese[name]
    assert page.count('lang="ja"') == 1 and '<html lang="ja">' in page
    said = [text.strip() for text in Own(page).said if text.strip()]
    assert not {html.unescape(text) for text in said} & (english - {"n", "Rouge-L", "MLPs"})
    assert not FIELD.search(re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page))


def test_data_is_never_translated(japanese):
    bits = set(re.findall(r"<bdi>(.*?)</bdi>", japanese["rich"]))
    for row in report_sample.FACTS:
        assert row[2] in bits or any(bit.startswith(row[2]) for bit in bits)
        assert {f"{row[1]}", row[3]} <= bits
    assert "skill that is kept" in bits and "settings.learning_rate" in bits


@each_report
def test_english_is_as_if_no_other_language_were_there(japanese, name):
    assert japanese[name] != render_report(REPORTS[name])
    assert '<html lang="en-GB">' in render_report(REPORTS[name])
    assert not JAPANESE.search(render_report(REPORTS[name]))
    assert words.language() == "en"


def test_a_page_of_the_server_holds_the_report_in_the_language_of_its_reader(calm):
    reader = Browser(calm, "agreer")
    english = reader.get("/versions/v1", headers={"accept-language": "en"}).text
    assert "What was kept" in english and "Report on candidate v1" in re.sub("<[^>]+>", "", english)
    shown = reader.get("/versions/v1", headers={"accept-language": "ja"}).text
    assert "候補v1のレポート" in html.unescape(re.sub("<[^>]+>", "", shown)) and "保持されたもの" in shown
    assert "<div lang=" not in shown and "for now" not in shown
    assert '<html lang="ja">' in reader.get("/versions/v1/report", headers={"accept-language": "ja"}).text
    assert '<html lang="en-GB">' in reader.get("/versions/v1/report", headers={"accept-language": "en"}).text


def test_numbers_are_those_of_the_language(monkeypatch):
    monkeypatch.setitem(words.LANGUAGES, "de", "Deutsch")
    with words.speaking("de"):
        assert words.separated("1,234.5") == "1.234,5" and words.percent_sign() == "\u00a0%"
        found = headline(report_sample.full_report())
    assert found.figures[2].note == "Right answers: 58,9\u00a0% before, 58,7\u00a0% now."


def test_a_language_without_a_catalogue_is_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown language 'jp'\. Known: en, ja"):
        words.known("jp")
    assert words.known("ja") == "ja"


# What lower rooms wrote into the report


def said(text):
    with words.speaking("ja"):
        return reported.told(text)


@each_report
def test_gates_and_their_reasons_are_japanese(calm, name):
    policy = full_policy(calm.shop)
    report = REPORTS[name].model_copy(update={"spent": Spent(versions=2, facts=20, tasks=1, flops=1e12)})
    verdicts = judge(report, policy).verdicts
    assert len(verdicts) > 3
    for verdict in verdicts:
        for text in (verdict.gate, verdict.reason):
            assert JAPANESE.search(said(text)), text
            assert not re.search(r"\b(at most|is allowed|points|against)\b", said(text)), said(text)


def test_labels_are_japanese():
    ways = [way.words.format(what=what, asked=asked, other=other)
            for way in compare._WAYS for what, asked in compare._KINDS.values()
            for other in ("the new fact", "the old one")]  # fmt: skip
    parts = [compare.label_of(part) for part in ("facts.prompt", "facts.paraphrase", "instructions")]
    labels = [*ways, *parts, "in context: present past", "writes the same as before, asked a question nearby"]
    labels += [row.label for row in report_sample.full_report().ripple.comparisons]
    for text in (*labels, *TOKEN_CLASSES, *ripple_measures.KIND_WORDS.values(), *skills.SHORT):
        assert JAPANESE.search(said(text)) or text in skills.SHORT, text
    for reason in ("UNANSWERED", "UNKNOWN", "OVERTAKEN", "TOO_LONG"):
        assert JAPANESE.search(said(getattr(ripple_questions, reason)))
    assert said("finds the right answer likelier than the new fact, asked a question nearby") == (
        "周辺の質問で、正しい回答のほうが新しい事実より確からしい"
    )
    assert said("kept: my own suite (against the base)") == "保持: my own suite（元のモデルとの比較）"
    assert said("present past of swim: before 'swam', now 'the one'") == (
        "present past of swim: 以前は「swam」、今は「the one」"
    )


def test_the_summary_of_ripple_effects_is_japanese():
    cases = report_sample.full_report().ripple.cases
    for chosen in (
        cases,
        [case for case in cases if len(case.hops) > 1],
        [case for case in cases if not case.after_ok],
    ):
        with words.speaking("ja"):
            text = reported.every(ripple_measures.summarise(chosen))
        assert JAPANESE.search(text) and not LETTERS.search(text), text


def shape(text):
    return re.sub(r"\{\w+\}", "\0", text)


def sources(*packages):
    """Every text in the sources of some packages, fields left blank."""
    found = set()
    for file in (path for package in packages for path in Path(package.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                pieces = [piece.value if isinstance(piece, ast.Constant) else "\0" for piece in node.values]
                found.add("".join(pieces))
    return found


def test_the_lower_rooms_still_say_what_is_listed():
    told = sources(editing, governance, measuring, tuning, vectors, workspace)
    pieces = {piece.strip() for text in told for piece in re.split(r"\0+|\{\w+\}", text)}
    # Put together from pieces: the tests of gates and of summaries see these whole.
    composed = ("{count} are ", "calibrated on", "merged: ", "refused: ", "The model {repeats}", "Where one new fact")
    for listed in (text for text in reported._SAYINGS.texts if not text.startswith(composed)):
        for piece in shape(listed).split("\0"):
            bare = piece.strip(" ;:,.()'")
            assert not bare or any(bare in known for known in pieces), (listed, bare)


def test_what_a_person_wrote_into_a_reason_stays():
    assert said("nobody knows this") == "nobody knows this"
    hostile = "{0.__class__} points; a loss of at most {1} points is allowed"
    assert said(hostile) == hostile
    assert json.dumps(said("x" * 5000)) == json.dumps("x" * 5000)

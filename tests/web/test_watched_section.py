"""The section on watched concepts: words, table and chart say the same, and no name can break out of the page."""

import json

import pytest
import report_sample
from test_report import Page

import watched_concepts_sample as sample
from perdure.web import watched
from perdure.web.report import render_report

HOSTILE = "<script>alert(1)</script>"


def page_of(found):
    return render_report(report_sample.full_report().model_copy(update={"watched": found}))


@pytest.fixture(scope="module")
def html():
    return page_of(sample.watched())


def test_the_summary_names_what_was_lost_and_what_became_of_the_protected():
    said = watched.summary(sample.watched())
    assert "In “questions”, 6 concepts were found without labels." in said
    assert "Clearly worse: “My card was declined in a shop”. It is 16.0% of the traffic." in said
    assert "The protected one changed by 0.0 points (" in said
    assert "points less often (" in said


def test_where_nothing_changed_it_says_so():
    said = watched.summary(sample.watched(after=sample.BEFORE, weights={}))
    assert "neither clearly more nor less often" in said
    assert "None got clearly worse. None is protected." in said


def test_the_protected_come_first_then_what_changed():
    rows = watched.watched_rows(sample.watched())
    assert [row.found.concept.id for row in rows] == ["c2", "c3", "c1", "c4", "c5", "c6"]


def test_every_concept_stands_with_its_share_figures_and_drift(html):
    words = " ".join("".join(Page(html).words).split())
    for place, name in enumerate(sample.NAMES):
        assert name in words
        assert f"{100 * sample.SHARES[place]:.1f}%" in words
    assert "(protected, counts 3 times)" in words
    assert "15.0% of the traffic lies in no concept" in words
    assert "Where is my new card? Please tell me." in words


def test_the_chart_draws_the_same_rows(html):
    spec = json.loads(html.split('id="chart-watched">')[1].split("</script>")[0])
    labels = [row["label"] for layer in spec["layer"] for row in layer["data"]["values"] if "figures" in row]
    assert labels[0] == "How do I top up by bank transfer? (protected)"


def test_the_base_stands_beside_where_it_is_another_version():
    words = " ".join("".join(Page(page_of(sample.watched(base=sample.BEFORE))).words).split())
    assert "Against the original" in words
    assert "than the original." in words


def test_names_cannot_break_out():
    html = page_of(sample.watched(names=(HOSTILE, *sample.NAMES[1:])))
    section = html.split('<section id="watched"')[1].split("</section>")[0]
    assert "<script>alert" not in section
    assert "&lt;script&gt;" in section


def test_without_concepts_there_is_no_section():
    assert 'id="watched"' not in render_report(report_sample.full_report())

"""The section on what an encoder recognises: words, tables and charts say the same, and no name can break out."""

import json
import re

import concept_sample as sample
import pytest
import report_sample
from pydantic import ValidationError
from test_report import Page

from perdure.cli.look import say_report
from perdure.measuring.concepts import LostItem
from perdure.web import concept_charts, concepts, figures
from perdure.web.headline import headline
from perdure.web.page import policy
from perdure.web.report import render_report

FOUND = sample.measures()


@pytest.fixture(scope="module")
def html():
    return render_report(sample.report(FOUND))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_summary_says_what_was_learnt_and_what_was_lost():
    linear = FOUND.linear
    said = concepts.summary(FOUND)
    assert said.startswith("Of “sign digits”, which it was tuned on, it recognises 86.2% (")
    assert f"it recognises {figures.points(-linear.difference.value)[1:]} points less (" in said
    assert "than the original model" in said
    assert "Of 20 classes, 2 clearly got worse: “ship” by 36.7 points, “truck” by 36.7 points." in said


def test_where_nothing_was_lost_no_direction_is_claimed():
    said = concepts.summary(sample.measures(lost=0))
    assert "neither clearly more nor less (" in said
    assert "None of 20 classes clearly got worse." in said


def test_where_all_was_tuned_on_nothing_is_said_of_the_rest():
    alone = sample.measures(("sign digits",), (sample.DIGITS,))
    assert "nothing can be said of what it may have lost" in concepts.summary(alone)
    assert "chart-classes" not in Page(render_report(sample.report(alone))).data


def test_every_set_stands_with_its_figures_their_intervals_and_n(page):
    for row in concepts.set_rows(FOUND):
        linear = row.found.linear
        for share in (linear.before, linear.after):
            assert f"{figures.percent(share.value, share.n)} {figures.share_interval(share)}" in page.text
        for change in (linear.difference, linear.against_base, row.found.neighbours.difference):
            assert f"{figures.points(change.value)} {figures.difference_interval(change)}" in page.text
    change = FOUND.linear.difference
    assert f"{figures.points(change.value)} {figures.difference_interval(change)}" in page.text
    assert "sign digits (tuned on)" in page.text
    assert "To recognise the 10 classes of sign digits, from labelled examples." in page.text


def test_classes_are_drawn_with_the_intervals_that_hold_for_all_and_none_that_were_tuned_on(page):
    rows = concepts.class_rows(FOUND)
    assert [row.name for row in rows[:2]] == ["ship (cifar10)", "truck (cifar10)"]
    assert len(rows) == concepts.CLASS_LIMIT
    assert not [row for row in rows if "sign digits" in row.name]
    assert rows[0].comparison.difference == rows[0].found.jointly
    assert "15 of 20 classes that stand out" in page.text
    assert "hold for all 30 classes at once" in page.text
    drawn = [row for layer in page.data["chart-classes"]["layer"] for row in layer["data"]["values"] if "trend" in row]
    assert {row["label"] for row in drawn if row["trend"] == "worse"} == {"Ship (cifar10)", "Truck (cifar10)"}


def test_a_class_that_clearly_gained_is_shown_among_the_losses():
    turned = FOUND.model_copy(update={"sets": tuple(each.model_copy(update={"tuned": False}) for each in FOUND.sets)})
    rows = concepts.class_rows(turned)
    assert len(rows) == concepts.CLASS_LIMIT
    assert any(row.found.better for row in rows)


def test_lost_examples_are_small_pictures_in_the_page_and_nothing_else_is(page, html):
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 16
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") and attrs["alt"] for attrs in pictures)
    assert "img-src data:;" in policy()
    assert len(html.encode()) < 1_400_000
    assert "cifar10: " in page.text
    assert "taken for truck" in page.text or "taken for airplane" in page.text


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "data:text/html,x", "https://example.org/x.jpg", 'data:image/jpeg;base64,AA" onerror="x'],
)
def test_a_picture_is_a_picture(address):
    with pytest.raises(ValidationError):
        LostItem(name="x", label="x", taken_for="y", picture=address)


def test_the_drift_has_a_line_a_set_and_stages_by_depth(page):
    rows = concepts.set_rows(FOUND)
    spec = concept_charts.drift_chart(rows)
    assert spec["layer"][1]["encoding"]["x"]["sort"] == ["1", "4", "6", "9", "11"]
    assert len(spec["data"]["values"]) == 15
    assert {row["set"] for row in spec["data"]["values"] if row["tuned"]} == {"sign digits"}
    assert concept_charts.stage_labels(["a.0", "b.0"]) == ["a.0", "b.0"]
    assert {"chart-concepts", "chart-classes", "chart-drift-image", "chart-drift-image-narrow"} <= set(page.data)
    assert "vision_model.encoder.layers.11" in page.text
    text = json.dumps(spec, allow_nan=False)
    assert "#" not in text


def test_texts_and_images_drift_in_charts_of_their_own():
    both = [
        each.model_copy(update={"side": side})
        for each, side in zip(FOUND.sets, ("image", "text", "image"), strict=True)
    ]
    rows = concepts.set_rows(FOUND.model_copy(update={"sets": tuple(both)}))
    assert {side: len(each) for side, each in concept_charts.drift_sides(rows).items()} == {"image": 2, "text": 1}


def test_the_section_is_reachable_and_well_formed(page):
    assert "concepts" in page.attribute("id")
    assert "#concepts" in page.attribute("href")
    assert [tag for tag, _ in page.tags].count("table") == [tag for tag, _ in page.tags].count("caption")
    assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") in ("img", "region"))
    assert "Linear probe" in page.text or "linear probe" in page.text


def test_the_first_screen_says_what_was_learnt_and_lost():
    head = headline(sample.report(FOUND))
    assert head.asked == "Classes to teach"
    assert [figure.about for figure in head.figures[:2]] == [
        "Recognised of what it was tuned on", "Recognised of what it was not tuned on",
    ]  # fmt: skip
    assert head.figures[1].value == f"{figures.points(FOUND.linear.difference.value)} points"


def test_a_report_without_probes_has_no_section():
    page = Page(render_report(report_sample.full_report()))
    assert "concepts" not in page.attribute("id")


def test_hostile_names_are_shown_and_never_obeyed():
    names = report_sample.HOSTILE
    found = sample.measures(names, [names] * len(names), zero_shot=False)
    lost = tuple(LostItem(name=text, label=text, taken_for=text) for text in names)
    drift = [stage.model_copy(update={"stage": text}) for stage, text in zip(sample.drift(1), names, strict=False)]
    sets = tuple(each.model_copy(update={"lost": lost, "drift": tuple(drift)}) for each in found.sets)
    text = render_report(sample.report(found.model_copy(update={"sets": sets})))
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert len(page.inside) == len([1 for tag, _ in page.tags if tag in ("script", "style")])
    assert '"><img src=x onerror=alert(1)>' in page.text
    assert not {"\u202e", "\x00", "\x1b"} & set(text)
    assert not re.search(r"<script>alert", text)


def test_many_sets_and_classes_stay_a_page_that_can_be_mailed():
    count = 35
    names = [f"set {number}" for number in range(count)]
    found = sample.measures(names, [tuple(f"class {k}" for k in range(30))] * count)
    text = render_report(sample.report(found))
    assert len(text.encode()) < 2_000_000
    assert "5 more sets are in the report&#39;s data" in text
    assert [len(rows) for rows in concept_charts.drift_sides(concepts.set_rows(FOUND) * 3).values()] == [6]


def test_the_terminal_says_the_same(monkeypatch, capsys):
    monkeypatch.setattr("perdure.cli.console.out._width", 200)
    say_report(sample.report(FOUND))
    said = capsys.readouterr().out
    assert "sign digits (tuned on)" in said
    assert concepts.summary(FOUND) in " ".join(said.split("\n"))

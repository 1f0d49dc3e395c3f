"""The section on tasks: words, tables and charts say the same, and nothing that a task is called can break out."""

import json

import pytest
import report_sample
import task_sample as sample
from test_report import Page

from perdure.cli.look import say_report
from perdure.measuring.continual import FeatureDrift, Training
from perdure.measuring.shares import Estimate
from perdure.measuring.task_measures import Beside
from perdure.web import figures, task_charts, tasks
from perdure.web.headline import headline
from perdure.web.report import render_report

FOUND = sample.tasks()


@pytest.fixture(scope="module")
def html():
    return render_report(sample.report(FOUND))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_summary_says_what_was_learnt_and_forgotten():
    assert tasks.summary(FOUND) == (
        "Of the questions of the new task “sentiment of reviews”, the model answers 91% (84–95%; n\u00a0=\u00a0100) "
        "exactly right; before, it was 55%. Of the 2 tasks learnt earlier, 7.5 points (4.0–11.5; n\u00a0=\u00a0200) "
        "were forgotten on average since."
    )


def test_the_first_task_has_nothing_to_forget_and_what_stayed_is_said_so():
    first = sample.tasks(sample.NAMES[:1], ((4,), (82,)))
    assert "earlier" not in tasks.summary(first)
    assert not task_charts.is_sequence(first)
    kept = sample.tasks(sample.NAMES[:2], ((4, 0), (82, 0), (82, 90)))
    assert "Of the task learnt earlier, nothing was forgotten" in tasks.summary(kept)


def test_the_new_task_comes_first_and_tasks_of_one_name_are_told_apart():
    assert [row.name for row in tasks.task_rows(FOUND)] == ["sentiment of reviews", "returns", "warranty letters"]
    same = sample.tasks(("returns", "returns"), ((0, 0), (80, 0), (80, 80)))
    assert [row.name for row in tasks.task_rows(same)] == ["returns (v2)", "returns (v1)"]


def test_every_task_stands_with_its_figures_their_intervals_and_n(page):
    for row in tasks.task_rows(FOUND):
        exact = row.task.exact
        for share in (exact.before, exact.after, exact.base):
            assert f"{figures.percent(share.value, share.n)} {figures.share_interval(share)}" in page.text
        change = f"{figures.points(exact.difference.value)} {figures.difference_interval(exact.difference)}"
        assert " ".join(change.split()) in page.text
    assert "sentiment of reviews (new)" in page.text
    assert "Each of them asks: Answer the question about sentiment of reviews." in page.text


def test_the_four_figures_stand_in_words(page):
    assert "Average: all tasks, as they are answered now 82.0% (" in page.text
    assert "Forgetting: earlier tasks: the best since each was learnt, less now 7.5 (4.0 to 11.5) points" in page.text
    assert "less just after each was learnt −7.5 (−11.5 to −4.0) points −0." in page.text


def test_the_heat_map_has_a_cell_for_each_answer_and_frames_where_a_task_was_learnt():
    spec = task_charts.matrix_chart(FOUND)
    cells = {(cell["task"], cell["version"]): cell for cell in spec["data"]["values"]}
    assert len(cells) == 3 + 1 + 3 + 3  # v1 was asked its own task only
    assert cells["returns", "v1"]["right"] == 0.82
    assert {place for place, cell in cells.items() if cell["learnt"]} == {
        ("returns", "v1"), ("warranty letters", "v2"), ("sentiment of reviews", "v3"),
    }  # fmt: skip
    assert "returns: 4% in v0, 71% in v3" in task_charts.matrix_words(FOUND)


def test_the_curves_start_where_a_task_is_learnt_and_the_average_is_of_those_learnt():
    lines, _, averages = task_charts.course_chart(FOUND)["layer"]
    places = [(row["task"], row["version"], row["right"]) for row in lines["data"]["values"]]
    assert places[0] == ("returns", "v1", 82)
    assert len(places) == 6
    assert [row["right"] for row in averages["data"]["values"]] == [82, 81, 82]


def test_losses_and_penalties_are_drawn_from_the_log_and_numbers_that_are_none_are_left_out():
    assert [(curve.name, len(curve.points)) for curve in task_charts.losses(FOUND)] == [
        ("rows trained on", 60), ("rows held out", 3),
    ]  # fmt: skip
    assert [curve.name for curve in task_charts.penalties(FOUND)] == ["feature_distance", "function_vector"]
    odd = Training(log=({"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": float("nan")}, {"loss": 1.0}))
    [curve] = task_charts.losses(sample.tasks(beside=Beside(training=odd)))
    assert curve.points == [(1.0, 2.0), (3, 1.0)]
    assert json.dumps(task_charts.curve_chart([curve], "loss"), allow_nan=False)


def test_the_charts_hold_plain_data_and_the_colours_of_the_page():
    for spec in (
        task_charts.matrix_chart(FOUND),
        task_charts.course_chart(FOUND),
        task_charts.curve_chart(task_charts.losses(FOUND), "loss"),
    ):
        text = json.dumps(spec, allow_nan=False)
        assert "#" not in text
        assert "var(--accent)" in text


def test_the_section_is_reachable_and_well_formed(page):
    assert "tasks" in page.attribute("id")
    assert "#tasks" in page.attribute("href")
    assert {"chart-tasks", "chart-task-course", "chart-task-course-narrow", "chart-losses", "chart-penalty-1"} <= set(
        page.data
    )
    assert [tag for tag, _ in page.tags].count("table") == [tag for tag, _ in page.tags].count("caption")
    assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") in ("img", "region"))


def test_the_first_screen_says_what_was_learnt_and_forgotten():
    head = headline(sample.report(FOUND))
    assert head.asked == "1 task to teach"
    assert [figure.about for figure in head.figures[:2]] == ["Task learnt: exactly right", "Earlier tasks: forgotten"]
    assert (head.figures[0].value, head.figures[1].value) == ("91%", "7.5 points")


def test_questions_that_changed_come_first_and_all_are_folded_away(page):
    group = tasks.case_groups(FOUND)[1]
    assert group.name == "returns"
    assert [outcome.words for _, outcome in group.rows][:3] == ["Right before, wrong now"] * 3
    assert "200 of 300 questions: those whose answers changed, then others" in page.text


def test_a_version_without_tasks_has_no_section():
    page = Page(render_report(report_sample.full_report()))
    assert "tasks" not in page.attribute("id")
    assert "chart-tasks" not in page.data


def test_tasks_without_questions_are_named():
    found = sample.tasks().model_copy(
        update={"tasks": (), "stages": (), "exact": None, "rouge": None, "cases": (), "unasked": ("returns",)}
    )
    page = Page(render_report(sample.report(found)))
    assert "Of “returns” nothing can be said: no test questions were kept." in page.text
    assert "chart-tasks" not in page.data


def test_hostile_names_are_shown_and_never_obeyed():
    count = len(report_sample.HOSTILE)
    right = [[0] * count] + [[60] * count] * count
    found = sample.tasks(report_sample.HOSTILE, right)
    bad = [
        case.model_copy(update={"question": text, "before": text, "after": text, "expected": text})
        for case, text in zip(found.cases, report_sample.HOSTILE * 40, strict=False)
    ]
    log = ({"step": 1.0, "loss": 1.0, "regularizer/<script>": 1.0},)
    text = render_report(sample.report(found.model_copy(update={"cases": tuple(bad), "training": Training(log=log)})))
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert len(page.inside) == len([1 for tag, _ in page.tags if tag in ("script", "style")])
    assert '"><img src=x onerror=alert(1)>' in page.text
    assert not {"\u202e", "\x00", "\x1b"} & set(text)


def test_many_tasks_and_long_texts_stay_a_page_that_can_be_mailed():
    count = 45
    found = sample.tasks([f"task {n}" for n in range(count)], [[0] * count] + [[60] * count] * count)
    bad = [
        case.model_copy(update=dict.fromkeys(("question", "before", "after", "expected"), "字" * 1000))
        for case in found.cases
    ]
    text = render_report(sample.report(found.model_copy(update={"cases": tuple(bad)})))
    assert len(text.encode()) < 2_600_000
    assert "5 more tasks are in the report&#39;s data" in text
    assert len(task_charts.course_chart(found)["layer"][0]["encoding"]["strokeDash"]["scale"]["domain"]) == 6


def test_the_terminal_says_the_same(monkeypatch, capsys):
    monkeypatch.setattr("perdure.cli.console.out._width", 200)
    say_report(sample.report(FOUND))
    said = capsys.readouterr().out
    assert "sentiment of reviews" in said
    assert tasks.summary(FOUND) in said
    assert "Forgetting 7.5 (4.0 to 11.5) points; Backward transfer −7.5 (−11.5 to −4.0) points." in said
    assert "0.674 → 0.928" in said


def test_states_that_did_not_move_are_said_in_plain_words():
    still = FeatureDrift(mean=Estimate(value=0, low=0, high=0, n=48), blocks=(5, 11), by_block=(0.0, 0.0))
    said = tasks.drift_words(still)
    assert "are those of the original" in said and "most of all" not in said

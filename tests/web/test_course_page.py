import json

import pytest
from report_sample import full_report

from perdure.measuring.course import Cohort, Course, Growth, TradeOff
from perdure.measuring.statistics import wilson
from perdure.web import courses
from perdure.web.report import render_report


def growth(facts, layer, sigma):
    name = f"model.layers.{layer}.mlp.down_proj.weight"
    return Growth(
        facts=facts,
        matrix=name,
        layer=layer,
        sigma_max=25 * sigma,
        sigma_ratio=sigma,
        condition_ratio=1.1,
        norm_ratio=0.2,
    )


GROWTH = tuple(growth(facts, layer, facts / 400 + layer / 50) for facts in (100, 200, 300) for layer in (4, 5))
COHORTS = (
    Cohort(taught=320, label="v1", kept=wilson(19, 20), before=wilson(20, 20)),
    Cohort(taught=320, label="v2", kept=wilson(291, 300), before=wilson(80, 300)),
)
CURVE = (
    TradeOff(restraint="none", config={"kind": "none"}, kept=wilson(98, 100), divergence=0.21),
    TradeOff(restraint="prune", config={"ceiling": 0.5}, kept=wilson(97, 100), divergence=0.12, chosen=True),
    TradeOff(restraint="prune", config={"ceiling": 0.25}, kept=wilson(81, 100), divergence=0.06),
)


def page(**parts):
    return render_report(full_report().model_copy(update={"course": Course(**parts)}))


def test_the_page_shows_ages_weights_and_strengths():
    html = page(growth=GROWTH, cohorts=COHORTS, trade_off=CURVE)
    assert "Edit by edit" in html
    assert "310 are answered as taught" in html
    assert "from 0.5 σ* (chosen)" in html
    assert html.count('data-chart="chart-growth-') == 3


def test_one_batch_is_no_course():
    assert "Edit by edit" not in page(growth=GROWTH[:2])
    assert "Edit by edit" not in render_report(full_report())


def test_what_names_say_is_escaped():
    bad = Cohort(taught=1, label="<script>alert(1)</script>", kept=wilson(1, 1))
    assert "<script>alert(1)" not in page(cohorts=(bad,))


@pytest.mark.parametrize("measure", list(courses.MEASURES))
def test_a_chart_has_a_line_a_matrix_and_says_its_end(measure):
    spec = courses.growth_chart(GROWTH, measure, "words")
    values = json.loads(json.dumps(spec))["data"]["values"]
    assert {row["matrix"] for row in values} == {"layer 4 down_proj", "layer 5 down_proj"}
    assert {row["facts"] for row in values} == {100, 200, 300}
    assert "after 300 facts" in courses.growth_words(GROWTH, measure)


def test_words_on_the_curve_name_what_was_chosen_and_what_it_costs():
    words = courses.trade_off_words(CURVE)
    assert "from 0.5 σ*" in words and "0.12" in words and "0.21" in words

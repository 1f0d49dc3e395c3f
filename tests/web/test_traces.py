"""The heat-maps of a trace: what they show, in words and on the page."""

import json

import pytest
import report_sample as sample
from test_report import Page
from trace_sample import DEPTH, trace

from perdure.measuring.report import Difference
from perdure.web import traces
from perdure.web.report import render_report


def page(**changes):
    found = sample.full_report().model_copy(update={"trace": trace(**changes)})
    return Page(render_report(found))


def test_runs_of_layers_are_named():
    assert traces.runs([7, 4, 5, 6, 9]) == [(4, 7), (9, 9)]
    assert traces.layer_names([4, 5, 6, 7]) == "4 to 7"
    assert traces.layer_names([1, 4, 5, 9]) == "1, 4 to 5 and 9"
    assert traces.layer_names([3]) == "3"


@pytest.mark.parametrize("state", ["mlp", "hidden"])
def test_a_map_has_a_cell_for_each_layer_and_class(state):
    spec = traces.trace_chart(trace(), state, [4, 5])
    cells = spec["layer"][0]["data"]["values"]
    assert len(cells) == 6 * DEPTH
    one = next(cell for cell in cells if cell["tokens"] == "last subject token" and cell["left"] == 4.5)
    effect = trace().line(state, "last subject token").effects[5]
    assert one["right"] == 5.5
    assert one["size"] == pytest.approx(100 * abs(effect.value))
    assert "layer 5, last subject token" in one["figures"]
    assert "n\u00a0=\u00a088" in one["figures"]


def test_negative_effects_have_their_own_colour_and_each_map_its_own_scale():
    mlp, hidden = (traces.trace_chart(trace(), state, []) for state in ("mlp", "hidden"))
    cells = mlp["layer"][0]["data"]["values"]
    assert {cell["gain"] for cell in cells} == {"given back", "taken away"}
    scales = [spec["layer"][0]["encoding"]["opacity"]["scale"]["domain"][1] for spec in (mlp, hidden)]
    assert scales == pytest.approx([10.6, 35.6])
    assert traces.title(trace(), "mlp") == "MLPs, 6 neighbouring layers at a time: the darkest cell is 10.6 points"


def test_edited_layers_are_framed_run_by_run():
    spec = traces.trace_chart(trace(), "mlp", [4, 5, 9, 77])
    assert spec["layer"][1]["data"]["values"] == [{"left": 3.5, "right": 5.5}, {"left": 8.5, "right": 9.5}]
    assert len(traces.trace_chart(trace(), "mlp", [])["layer"]) == 1


def test_a_narrow_map_has_short_names():
    wide, narrow = (traces.trace_chart(trace(), "mlp", [], narrow=narrow) for narrow in (False, True))
    longest = [max(len(cell["tokens"]) for cell in spec["layer"][0]["data"]["values"]) for spec in (wide, narrow)]
    assert longest[1] < longest[0]


def test_specifications_hold_plain_data_and_the_colours_of_the_page():
    text = json.dumps([traces.trace_chart(trace(), state, [4]) for state in ("mlp", "hidden")], allow_nan=False)
    assert "#" not in text
    assert "var(--accent)" in text


def test_the_sentence_says_where_and_how_the_edit_stands_to_it():
    says = traces.summary(trace(), [4, 5, 6, 7])
    assert "88 facts that it knows were asked" in says
    assert "costs the answer 38.0 points of its probability" in says
    assert "around layer 5: 10.6 points of its probability (+9.4 to +11.8; n\u00a0=\u00a088)" in says
    assert "changed layers 4 to 7, where it is" in says
    assert traces.summary(trace(), [5]).endswith("changed layer 5, where it is 10.6 points of its probability.")
    assert traces.summary(trace(), []).endswith("n\u00a0=\u00a088).")
    assert "No layer alone" in traces.summary(trace(layer=None, layers=()), [4])


def test_the_report_shows_both_maps_with_the_same_figures_in_tables():
    found = page()
    assert {"chart-trace-mlp", "chart-trace-hidden", "chart-trace-mlp-narrow"} <= set(found.data)
    assert "traced" in found.attribute("id")
    assert "#traced" in found.attribute("href")
    assert "Where facts are kept" in found.text
    assert "6 neighbouring layers at a time" in found.text
    assert "changed layers 4 to 8" in found.text
    assert "MLPs, last subject token 5+10.6 +9.4 to +11.8 88" in found.text
    assert [tag for tag, _ in found.tags].count("table") == [tag for tag, _ in found.tags].count("caption")


def test_without_a_trace_there_is_no_section():
    found = Page(render_report(sample.full_report()))
    assert "traced" not in found.attribute("id")
    assert not [key for key in found.data if "trace" in key]


def test_a_trace_of_nothing_still_makes_a_page():
    flat = Difference(value=0.0, low=-1.0, high=1.0, n=1)
    lines = tuple(line.model_copy(update={"effects": (flat,) * 4}) for line in trace().lines[:2])
    found = page(lines=lines, layers=(), layer=None, facts=1, left_out={})
    assert "1 fact that it knows was asked" in found.text
    assert "No layer alone" in found.text

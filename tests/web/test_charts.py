"""Chart specifications: what they show, in which order, and that they hold nothing but plain data."""

import json

import pytest
import report_sample as sample

from perdure.web import charts, spectra


def comparison(value: float, *, spread: float = 0.01, better: bool = True, label: str = "part"):
    given = sample.comparison(label, label, "free generation", sample.share(50, 100), sample.share(50, 100))
    change = given.difference.model_copy(update={"value": value, "low": value - spread, "high": value + spread})
    return given.model_copy(update={"difference": change, "higher_is_better": better})


def rows(spec, key):
    return next(layer["data"]["values"] for layer in spec["layer"] if key in layer["data"]["values"][0])


def test_a_trend_is_clear_only_when_the_interval_keeps_off_zero():
    def found(*args, **named):
        given = comparison(*args, **named)
        return charts.trend(given, given.difference)

    assert found(-0.05) == "worse"
    assert found(0.05) == "better"
    assert found(-0.005) == "no clear change"
    assert found(0.05, better=False) == "worse"


def test_worst_first_knows_measures_where_less_is_better():
    given = [comparison(0.02, label="a"), comparison(0.05, better=False, label="b"), comparison(-0.01, label="c")]
    assert [part.label for part in charts.worst_first(given)] == ["b", "c", "a"]


def test_changes_are_drawn_in_percentage_points_with_their_interval():
    spec = charts.changes_chart([comparison(-0.05)], "words")
    row = rows(spec, "value")[0]
    assert (row["value"], row["low"], row["high"]) == pytest.approx((-5, -6, -4))
    assert row["trend"] == "worse"
    assert spec["description"] == "words"
    low, high = spec["layer"][1]["encoding"]["x"]["scale"]["domain"]
    assert low < -6 < 0 < high


def test_rows_of_one_name_stay_apart():
    spec = charts.changes_chart([comparison(0.1), comparison(0.2)], "words")
    assert {row["label"] for row in rows(spec, "value")} == {"Part (1)", "Part (2)"}


def test_the_base_has_a_lane_of_its_own_where_it_is_known():
    given = sample.retention(based=True)
    spec = charts.changes_chart(given.parts, "words")
    assert {row["against"] for row in rows(spec, "value")} == set(charts.AGAINST)
    assert "yOffset" in spec["layer"][1]["encoding"]
    assert "yOffset" not in charts.changes_chart(sample.retention(based=False).parts, "words")["layer"][1]["encoding"]


def test_values_that_cannot_be_drawn_are_left_out():
    spec = charts.changes_chart([comparison(float("nan")), comparison(0.1, label="other")], "words")
    assert [row["label"] for row in rows(spec, "value")] == ["Other"]


def test_shares_stand_before_and_after():
    spec = charts.shares_chart(sample.edits().comparisons[:1], "words")
    found = {row["moment"]: row["value"] for row in rows(spec, "moment")}
    assert found == {"before": 0, "after": 100}


def test_on_a_narrow_screen_a_long_label_keeps_its_end():
    spec = charts.changes_chart([comparison(0.1, label="word " * 20 + "the end")], "words", narrow=True)
    label = rows(spec, "value")[0]["label"]
    assert len(label) <= 42
    assert label.startswith("Word word")
    assert label.endswith("the end")


def test_long_labels_stand_above_their_rows_on_any_screen():
    short, long = (charts.changes_chart([comparison(0.1, label="word " * n)], "words") for n in (3, 12))
    assert [spec["layer"][-1]["mark"]["type"] for spec in (short, long)] == ["point", "text"]


@pytest.mark.parametrize("chart", [charts.changes_chart, charts.shares_chart])
def test_on_a_narrow_screen_labels_stand_above_the_marks(chart):
    wide, narrow = (chart(sample.retention(based=False).parts, "words", narrow=narrow) for narrow in (False, True))
    assert wide["layer"][-1]["mark"]["type"] == "point"
    assert narrow["layer"][-1]["mark"]["type"] == "text"
    assert narrow["layer"][1]["encoding"]["y"]["axis"] is None


def test_spectra_share_one_scale_that_holds_the_largest_of_the_base():
    found = sample.matrices(3)
    scale = spectra.common_scale(found)
    assert scale[0] == 0
    assert scale[1] > max(max(m.sigma_max_base, m.sigma_max_solved) for m in found)
    assert spectra.common_scale([]) == [0.0, 1.0]


def test_a_spectrum_shows_both_series_and_the_ceiling():
    matrix = sample.matrices(1)[0]
    spec = spectra.spectrum_chart(matrix, [0, 10], "words")
    assert [row["value"] for row in spec["data"]["values"]] == [*matrix.singular_values_solved, *matrix.singular_values]
    assert spec["layer"][-1]["data"]["values"] == [{"value": matrix.sigma_max_base}]


def test_no_colour_is_fixed_so_that_light_dark_and_paper_all_work():
    specs = [
        charts.changes_chart(sample.retention(based=True).parts, "words"),
        charts.shares_chart(sample.edits().comparisons, "words", narrow=True),
        spectra.spectrum_chart(sample.matrices(1)[0], [0, 10], "words"),
    ]
    text = json.dumps(specs, allow_nan=False)
    assert "#" not in text
    assert "var(--ink)" in text

"""The section on single neurons: the histogram adds up, the words say what the figures say, the lists are reachable."""

import json

import neuron_sample as sample
import report_sample
from test_report import Page

from perdure.measuring.neurons import CASES, NeuronMeasures
from perdure.web import neurons
from perdure.web.report import render_report


def page(found):
    return Page(render_report(report_sample.full_report().model_copy(update={"neurons": found})))


def test_every_neuron_stands_in_one_bar_of_its_case():
    found = sample.neurons()
    spec = neurons.angles_chart(found)
    rows = spec["data"]["values"]
    for case in CASES:
        assert sum(row["count"] for row in rows if row["case"] == neurons.names(found)[case]) == found.count(case)
    assert all(row["to"] - row["from"] == 5 and 0 <= row["from"] < row["to"] <= 180 for row in rows)
    domain = spec["layer"][0]["encoding"]["color"]["scale"]
    assert len(domain["domain"]) == len(set(domain["range"])) == 4


def test_a_case_without_neurons_has_no_bar_and_no_legend():
    one = sample.group(0)
    only = one.model_copy(update={"angles": {"orthogonal": one.angles["orthogonal"]}})
    spec = neurons.angles_chart(NeuronMeasures(groups=(only,)))
    assert spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == [neurons.NAMES["orthogonal"]]


def test_colours_are_the_pages_own():
    text = json.dumps(neurons.angles_chart(sample.neurons()), allow_nan=False)
    assert "#" not in text
    assert "url" not in text.lower().replace("currentcolor", "")


def test_words_say_how_many_were_merged_forgotten_and_left_alone():
    found = sample.neurons()
    says = neurons.summary(found)
    rest = found.count("orthogonal") + found.count("skipped")
    assert says.startswith("Of 1,600 neurons, ")
    for count in (found.count("acute"), found.count("obtuse"), rest):
        assert f" {count:,} (" in says
    assert "the median lies at 70–75°" in neurons.words(found)


def test_acute_neurons_that_were_not_merged_count_as_left_alone():
    group = sample.group(0).model_copy(update={"merges": False, "shared": 0.4})
    found = NeuronMeasures(groups=(group,))
    says, left = neurons.summary(found), 400 - group.count("obtuse")
    assert f" {left:,} (" in says
    assert "merged" not in says
    assert [case for case, _ in neurons.rows(found)[0].moved] == ["obtuse"]
    assert "acute: left alone" in neurons.angles_chart(found)["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert "is taken out of the new one" in page(found).text
    assert "is taken out of the new one" not in page(sample.neurons()).text


def test_the_section_shows_every_layer_and_lists_what_moved():
    found = sample.neurons()
    shown = page(found)
    assert "chart-neurons" in shown.data
    assert "neurons" in shown.attribute("id")
    assert "#neurons" in shown.attribute("href")
    for group in found.groups:
        assert f"layer {group.layer}{''.join(str(group.count(case)) for case in CASES)}" in shown.text
    first = found.groups[0].cases["obtuse"].replace(",", ", ")
    assert first in shown.text


def test_batches_are_told_apart_where_there_are_several():
    assert "batch 2, layer 3" in page(sample.neurons(batches=2)).text
    assert "batch 1" not in page(sample.neurons()).text


def test_without_neurons_there_is_no_section():
    assert "neurons" not in page(None).attribute("id")


def test_rows_of_a_matrix_go_by_its_name():
    found = NeuronMeasures(groups=(sample.group(1, matrix="model.layers.1.mlp.up_proj"),))
    assert neurons.rows(found)[0].name == "model.layers.1.mlp.up_proj"


def test_a_model_of_any_size_stays_a_page_that_can_be_mailed():
    found = NeuronMeasures(groups=tuple(sample.group(layer, count=11_008) for layer in range(32)))
    html = render_report(report_sample.full_report().model_copy(update={"neurons": found}))
    assert len(html.encode()) < 1_500_000

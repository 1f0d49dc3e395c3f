"""A workspace traces its base once, and edits where the trace says."""

import json

import pytest

import planted
from perdure import Workspace
from perdure.editing.corruption import TracedFact
from perdure.editing.tracing import TraceConfig
from perdure.errors import RequestError, SettingError
from perdure.workspace import Settings
from perdure.workspace.layer_choice import choose
from perdure.workspace.tracing import known_trace, read_traced, trace_config
from shops import FACTS, QUICK

LAYER = 2
ASKED = [TracedFact(**fact) for fact in planted.FACTS]
CONFIG = TraceConfig(draws=2, window=1)


@pytest.fixture(scope="module")
def planted_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("planted")
    planted.model(LAYER).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def shop(tmp_path, planted_folder, quick_suite):
    return Workspace.init(tmp_path / "shop", planted_folder, actor="sato")


def refuse(*_):
    pytest.fail("a model was loaded")


def test_the_trace_is_taken_once_and_names_the_planted_layer(shop, monkeypatch):
    assert known_trace(shop) is None
    told = []
    shop.progress = lambda *step: told.append(step)
    found = shop.trace(ASKED, CONFIG)
    assert (found.layer, found.facts, found.window) == (LAYER, len(ASKED), 1)
    assert found.settings["draws"] == 2
    assert ("tracing facts", len(ASKED), len(ASKED)) in told
    effect = found.line("mlp", "last subject token").effects[LAYER]
    assert effect.low < effect.value < effect.high
    assert effect.n == len(ASKED)
    assert found.lost.value == pytest.approx(effect.value, abs=0.03)
    monkeypatch.setattr(shop, "load", refuse)
    assert shop.trace(ASKED, CONFIG) == found == known_trace(shop) == known_trace(shop, found.id)


def test_other_facts_or_settings_are_another_trace(shop):
    first = shop.trace(ASKED, CONFIG)
    other = shop.trace(ASKED, TraceConfig(draws=2, window=1, seed=1))
    fewer = shop.trace(ASKED[:3], CONFIG)
    assert len({first.id, other.id, fewer.id}) == 3
    assert known_trace(shop) == fewer
    shop.trace(ASKED, CONFIG)
    assert known_trace(shop) == first


def test_the_facts_of_the_suite_are_traced_without_others(shop):
    with pytest.raises(RequestError, match="no fact can be traced"):
        shop.trace()  # the one fact of the small suite is not known to this model


def test_facts_come_from_files(tmp_path):
    known = planted.write_facts(tmp_path / "known.jsonl")
    assert read_traced(known) == ASKED
    facts = tmp_path / "facts.jsonl"
    facts.write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    assert [fact.answer for fact in read_traced(facts)] == ["Beirut", "Danish"]
    known.write_text('{"subject": "Oz", "prompt": "Oz is", "answer": ""}\n')
    with pytest.raises(RequestError, match=r"known\.jsonl:1"):
        read_traced(known)


def test_settings_are_checked():
    assert trace_config({"draws": 3}).draws == 3
    for wrong in ({"draw": 3}, {"noise": 0}):
        with pytest.raises(SettingError, match="Settings: noise, draws, window, seed"):
            trace_config(wrong)


def test_traced_layers_are_edited_and_recorded(shop, monkeypatch):
    found = shop.trace(ASKED, CONFIG)
    version = shop.edit(FACTS, editor="fine_tuning", restraint="none", config={"steps": 1}, layers="traced")
    recipe = version.manifest.recipe
    assert recipe["layers"] == {"by": "traced", "layers": list(found.layers), "trace": found.id}
    assert recipe["config"]["layers"] == list(found.layers)
    changed = {name.split(".")[2] for name in recipe["dense"]}
    assert changed == {str(layer) for layer in found.layers}
    shop.trace(ASKED[:3], CONFIG)
    assert shop.measure(version).trace == found  # the one that the layers came from, not the latest


def test_a_report_shows_the_latest_trace_or_none(tiny_shop):
    version = tiny_shop.edit(FACTS, config=QUICK)
    assert version.manifest.recipe["layers"] == {"by": "default"}
    assert tiny_shop.measure(version).trace is None


@pytest.mark.parametrize(
    ("editor", "asked", "setting", "record"),
    [
        ("memit", "depth", {"layers": (1,)}, {"by": "depth", "layers": [1]}),
        ("fine_tuning", "depth", {"layers": (1,)}, {"by": "depth", "layers": [1]}),
        ("rome", "depth", {"layer": 1}, {"by": "depth", "layer": 1}),
        ("rome", [2], {"layer": 2}, {"by": "given", "layer": 2}),
        ("memit", [0, 2], {"layers": (0, 2)}, {"by": "given", "layers": [0, 2]}),
        ("memit", None, {"layers": None}, {"by": "default"}),
    ],
)
def test_layers_by_depth_and_by_number_need_no_model(tiny_shop, monkeypatch, editor, asked, setting, record):
    monkeypatch.setattr(tiny_shop, "load", refuse)
    plan, _ = tiny_shop.plan(FACTS, Settings(editor, layers=asked))
    assert {name: getattr(plan.config, name) for name in setting} == setting
    assert plan.recipe()["layers"] == record


def test_layers_among_the_settings_are_recorded_as_given(tiny_shop):
    plan, _ = tiny_shop.plan(FACTS, Settings(config={"layers": [2]}))
    assert plan.recipe()["layers"] == {"by": "given"}
    published = Settings(preset="llama-3-8b")
    assert choose(tiny_shop, tiny_shop.version("v0"), published).record == {"by": "preset"}
    with pytest.raises(SettingError, match="from 0 to 3; given"):  # this model has no such layers
        tiny_shop.plan(FACTS, published)
    plan, _ = tiny_shop.plan(FACTS, Settings(preset="llama-3-8b", layers="depth"))
    assert plan.config.layers == (1,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(layers="traced"), "run perdure trace first"),
        (Settings(layers="deep"), "traced, depth, or numbers"),
        (Settings(config={"layers": [1]}, layers="depth"), "given twice"),
        (Settings("rome", layers=[1, 2]), "one layer"),
    ],
)
def test_layers_that_cannot_be_chosen_are_told(tiny_shop, settings, words):
    with pytest.raises(SettingError, match=words):
        tiny_shop.plan(FACTS, settings)


def test_an_editor_without_layers_says_so(tiny_shop, monkeypatch):
    from pydantic import BaseModel

    from perdure.registry import Method

    method = Method("editor", "plain", refuse, BaseModel, "none", "")
    monkeypatch.setattr("perdure.workspace.layer_choice.editors.get", lambda _: method)
    with pytest.raises(SettingError, match="plain has no setting for layers"):
        tiny_shop.plan(FACTS, Settings("plain", layers="depth"))


def test_a_trace_without_effect_offers_no_layers(shop, monkeypatch):
    found = shop.trace(ASKED, CONFIG).model_copy(update={"layers": (), "layer": None})
    monkeypatch.setattr("perdure.workspace.layer_choice.known_trace", lambda _: found)
    with pytest.raises(SettingError, match="layers=depth"):
        shop.plan(FACTS, Settings(layers="traced"))

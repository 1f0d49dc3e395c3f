"""Skills of two models compared: on a model whose one carrier is known, recalled, refused; and how losses are judged.

The planted model answers every prompt that has a “z” in it, by the attention of one block. Without that attention's
output it answers nothing, and the vector from before brings the answer back; without its head nothing brings it back.
"""

import gc
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import planted
import tiny as models
from perdure.errors import ModelError, RequestError, SettingError
from perdure.measuring import skill_comparison
from perdure.measuring.shares import Difference, Share
from perdure.measuring.skill_comparison import (
    Bench,
    Side,
    compare_skills,
    functions_named,
    read_comparison,
    traits_of,
    vector_config,
)
from perdure.measuring.skill_study import study_skills
from perdure.measuring.skills import Asked, compare_answers, judge_skill
from perdure.requests.functions import Function, Pair
from perdure.vectors import Evidence, Judged, Sweep, VectorConfig

QUICK = VectorConfig(shots=2, clean=6, shuffled=4, prefilter=None, heads=24, validation=3, asked=6)


def function(name="letters", outputs="abcdefghijklmnopqrst"):
    return Function(name, tuple(Pair(input=f"z{chr(97 + n)}", output=letter) for n, letter in enumerate(outputs)))


def side(name, model):
    digest = str(sum(weight.double().sum() for weight in model.parameters()))
    return Side(name, digest, lambda: (model, models.tokenizer()))


def without(name):
    """The planted model without one of its matrices."""
    made = planted.model(2)
    made.get_submodule(name).weight.zero_()
    return made


@pytest.fixture
def bench(tmp_path):
    return Bench(QUICK, tmp_path / "vectors")


@pytest.fixture
def told(monkeypatch):
    """Any function tells something: of bytes, every answer starts with a space, shuffled or not."""
    monkeypatch.setattr(
        "perdure.vectors.studies.weigh", lambda clean, shuffled, _: Evidence(tuple(clean), tuple(shuffled), "")
    )


@pytest.fixture
def silent(monkeypatch):
    """Nothing may be run any more."""

    def refuse(*_args, **_more):
        raise AssertionError("run again")

    for name in ("study", "judge"):
        monkeypatch.setattr(skill_comparison, name, refuse)


BEFORE = side("before", planted.model(2))
SHUT = side("shut", without("model.layers.4.self_attn.o_proj"))
GONE = side("gone", without("lm_head"))


@pytest.mark.usefixtures("told")
def test_a_skill_whose_old_vector_brings_it_back_is_still_there(bench):
    found = compare_skills(BEFORE, SHUT, [function()], bench)
    [skill] = found.skills
    few = skill.asked["few-shot"]
    assert (few.before.value, few.after.value, few.vector.value) == (1, 0, 1)
    assert few.random.value < 1
    assert (skill.verdict, skill.recovered) == ("biased", 1)
    assert skill.asked["zero-shot"].before_vector.n == 6
    assert skill.shift == 1  # of the model after no prompt was answered, so there is no vector
    assert len(found.heads) == 24
    assert len(skill.activations) == 6
    assert len(skill.activations[0]) == 4


@pytest.mark.usefixtures("told")
def test_a_skill_that_no_vector_brings_back_is_lost(bench):
    [skill] = compare_skills(BEFORE, GONE, [function()], bench).skills
    assert (skill.verdict, skill.recovered) == ("overwritten", 0)


@pytest.mark.usefixtures("told")
def test_a_model_compared_with_itself_moved_nowhere(bench):
    [skill] = compare_skills(BEFORE, BEFORE, [function()], bench).skills
    assert skill.shift == pytest.approx(0, abs=1e-6)
    assert skill.kept_heads == 24
    assert not any(map(any, skill.activations))
    assert skill.verdict == "kept"


def test_functions_that_tell_nothing_are_named_and_refused_where_there_is_no_other(bench):
    with pytest.raises(RequestError, match=r"(?s)none of 2 functions.*letters: intact prompts.*more: intact"):
        compare_skills(BEFORE, SHUT, [function(), function("more", "tsrqponmlkjihgfedcba")], bench)


def test_a_function_that_tells_nothing_stands_beside_others_with_its_reason(bench, monkeypatch):
    reasons = iter(["too weak", "", ""])
    monkeypatch.setattr(
        "perdure.vectors.studies.weigh",
        lambda clean, shuffled, _: Evidence(tuple(clean), tuple(shuffled), next(reasons)),
    )
    asked = [function("weak", "tsrqponmlkjihgfedcba"), function()]
    weak, other = compare_skills(BEFORE, SHUT, asked, bench).skills
    assert (weak.verdict, weak.reason, weak.asked) == ("untold", "too weak", {})
    assert other.verdict == "biased"


@pytest.mark.usefixtures("told")
def test_other_architectures_are_refused(bench):
    other = side("other", models.llama())
    with pytest.raises(ModelError, match="6 x 4 x 8 x 32 and 4 x 4 x 8 x 32; give two checkpoints of one model"):
        compare_skills(BEFORE, other, [function()], bench)


@pytest.mark.usefixtures("told")
def test_what_was_compared_is_recalled_under_todays_names(bench, request):
    first = compare_skills(BEFORE, SHUT, [function()], bench)
    request.getfixturevalue("silent")
    again = compare_skills(Side("v0", BEFORE.id, BEFORE.load), SHUT, [function()], bench)
    assert again == first.model_copy(update={"before": "v0"})
    assert read_comparison(bench.folder, first.id) == first
    assert read_comparison(bench.folder, "0" * 64) is None
    with pytest.raises(AssertionError, match="run again"):
        compare_skills(BEFORE, SHUT, [function()], Bench(QUICK.model_copy(update={"shots": 1}), bench.folder))


@pytest.mark.usefixtures("told")
def test_damaged_files_are_made_again(bench):
    first = compare_skills(BEFORE, SHUT, [function()], bench)
    files = sorted(bench.folder.iterdir())
    assert [path.suffix for path in files].count(".safetensors") == 2
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert compare_skills(BEFORE, SHUT, [function()], bench) == first
    assert json.loads((bench.folder / f"{first.id}.json").read_bytes())["id"] == first.id


@pytest.mark.usefixtures("told")
def test_the_same_pairs_under_another_name_keep_that_name(bench, request):
    traits_of(BEFORE, function(), bench)
    request.getfixturevalue("silent")
    assert traits_of(BEFORE, function("renamed"), bench).name == "renamed"


def test_two_functions_of_one_name_are_refused(bench):
    with pytest.raises(RequestError, match="two functions are called 'letters'; rename"):
        compare_skills(BEFORE, SHUT, [function(), function(outputs="tsrqponmlkjihgfedcba")], bench)


def test_functions_are_found_by_name_and_by_file(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("input,output\na,b\n")
    assert [found.name for found in functions_named(["present_past", path])] == ["present_past", "mine"]
    assert len(functions_named([])) > 10
    with pytest.raises(RequestError, match=r"'present_pas' is neither a built-in function nor a file. Built-in: adj"):
        functions_named(["present_pas"])


def test_settings_are_checked():
    assert vector_config({"shots": 3}).shots == 3
    for given in ({"shot": 3}, {"shots": 0}):
        with pytest.raises(SettingError, match=r"function vectors: shots?: .* Settings: shots, clean"):
            vector_config(given)


def test_a_checkpoint_is_loaded_once_while_it_is_held_and_known_by_its_content(tiny_folder, tmp_path):
    found = Side.of_checkpoint(tiny_folder)
    model, tokenizer = found.load()
    assert found.load()[0] is model
    assert tokenizer is not None
    del model
    gc.collect()
    assert found.load()[0] is not None
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    assert Side.of_checkpoint(copy).id == found.id
    weights = load_file(copy / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, copy / "model.safetensors", {"format": "pt"})
    assert Side.of_checkpoint(copy).id != found.id


@pytest.mark.usefixtures("told")
def test_a_study_says_which_heads_carry_what_and_what_the_vector_does(bench):
    found = study_skills(BEFORE, [function()], bench)
    [one] = found.functions
    assert (one.reason, one.clean.value, one.clean.n) == ("", 1, 4)
    assert set(one.asked) == {"zero-shot", "few-shot", "shuffled"}
    assert one.asked["few-shot"].plain.n == 6
    assert one.asked["few-shot"].gained.value == one.asked["few-shot"].vector.value - one.asked["few-shot"].plain.value
    effects = [head.effect for head in one.heads]
    assert effects == sorted(effects, reverse=True)
    assert len({(head.layer, head.head) for head in found.heads}) == 24


@pytest.mark.usefixtures("told")
def test_a_study_is_recalled_unless_it_is_damaged(bench, request):
    first = study_skills(BEFORE, [function()], bench)
    path = bench.folder / f"{first.id}.json"
    path.write_text("{}")
    assert study_skills(BEFORE, [function()], bench) == first
    request.getfixturevalue("silent")
    assert study_skills(Side("v0", BEFORE.id, BEFORE.load), [function()], bench).model == "v0"


def test_a_study_of_functions_that_tell_nothing_gives_the_reasons(bench):
    found = study_skills(BEFORE, [function()], bench)
    assert found.heads == ()
    assert found.functions[0].reason.startswith("intact prompts are answered rightly 100% of the time")
    assert (found.functions[0].heads, found.functions[0].asked) == ((), {})


def asked(lost, back, vector=2):
    share = Share(hits=1, n=2, value=0.5, low=0.1, high=0.9)
    kept = dict.fromkeys(("before", "before_vector", "after", "random"), share)
    kept["vector"] = share.model_copy(update={"hits": vector})
    differences = [Difference(value=value, low=low, high=high, n=100) for low, value, high in (lost, back)]
    return Asked(**kept, lost=differences[0], back=differences[1], layer=3)


NONE, SURE = (-0.1, 0.0, 0.1), (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("lost", "back", "verdict", "recovered"),
    [
        ((-0.3, -0.049, 0.02), NONE, "kept", None),
        ((-0.3, -0.05, 0.02), NONE, "unclear", None),
        ((-0.3, -0.1, 0.0), SURE, "unclear", None),
        ((-0.5, -0.4, -0.01), SURE, "biased", 0.5),
        ((-0.5, -0.401, -0.3), SURE, "overwritten", 0.2 / 0.401),
        ((-0.5, -0.2, -0.1), (0.0, 0.2, 0.4), "unclear", 1.0),
        ((-0.5, -0.2, -0.1), (-0.3, -0.1, 0.1), "overwritten", -0.5),
        ((0.01, 0.1, 0.2), NONE, "kept", None),
    ],
)
def test_losses_are_judged_at_their_boundaries(lost, back, verdict, recovered):
    found, part = judge_skill(asked(lost, back))
    assert found == verdict
    assert part == recovered or math.isclose(part, recovered)


def test_what_a_random_vector_brings_back_as_well_is_not_there():
    lost = (-0.5, -0.4, -0.01)
    assert judge_skill(asked(lost, (0.1, 0.3, 0.5)))[0] == "biased"
    assert judge_skill(asked(lost, (0.1, 0.3, 0.5), vector=1))[0] == "overwritten"


def test_one_of_the_built_in_questions_may_turn_wrong_and_the_skill_counts_as_kept():
    before = Judged(Sweep((1,), (1.0,), 1.0), *([True] * 23,) * 3)
    for wrong, verdict in ((0, "kept"), (1, "kept"), (2, "unclear"), (5, "overwritten")):
        answers = [False] * wrong + [True] * (23 - wrong)
        after = Judged(Sweep((1,), (1.0,), 1.0), *(tuple(answers),) * 3)
        assert judge_skill(compare_answers(before, after))[0] == verdict


def test_compared_answers_are_those_of_the_same_questions():
    before = Judged(Sweep((1,), (1.0,), 1.0), (True, True), (True, False), (False, False))
    after = Judged(Sweep((2,), (1.0,), 1.0), (False, True), (True, True), (False, True))
    found = compare_answers(before, after)
    shares = [found.before, found.before_vector, found.after, found.vector, found.random]
    assert [share.hits for share in shares] == [2, 1, 1, 2, 1]
    assert (found.lost.value, found.back.value, found.layer) == (-0.5, 0.5, 2)


@pytest.mark.usefixtures("told")
def test_a_head_that_was_silent_before_still_fits_into_json(bench, monkeypatch):
    monkeypatch.setattr(
        skill_comparison, "activation_shift", lambda first, _: torch.full(first.shape[:2], float("inf"))
    )
    found = compare_skills(BEFORE, SHUT, [function()], bench)
    assert read_comparison(bench.folder, found.id) == found

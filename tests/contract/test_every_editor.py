"""What every registered editor must hold to, on every architecture."""

import pytest
import torch

from perdure.deltas import Delta, changed
from perdure.editing import Moments, Surroundings, applied, edit_in_batches
from perdure.errors import SettingError
from perdure.models import layout_of, score_targets
from perdure.registry import editors
from perdure.requests import Fact

TEXTS = ["The twin city of Lyon is Beirut, and the Nile is in Egypt. " * 3, "Ada speaks Danish to her friends. " * 5]
FACTS = (
    Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila"),
    Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch"),
)
TWINS = (
    Fact(subject="Lyon", prompt="Lyon lies in", target_new="Peru"),
    Fact(subject="Lyon", prompt="Lyon was built by", target_new="Romans"),
)
QUICK = {
    "alphaedit": {
        "values": {"clamp": 1, "learning_rate": 0.5, "steps": 20, "weight_decay": 0},
        "contexts": 0,
        "null_share": 0.5,
        "ridge": 1e-3,
    },
    "memit": {
        "values": {"steps": 20, "clamp": 30, "learning_rate": 0.5, "weight_decay": 0},
        "contexts": 0,
        "moment_weight": 1e-4,
    },
    "rome": {"values": {"steps": 20, "clamp": 30, "learning_rate": 0.5, "weight_decay": 0}, "contexts": 0},
    "fine_tuning": {"steps": 20, "learning_rate": 3e-3},
    "fine_tuning_constrained": {"steps": 20, "learning_rate": 3e-3, "radius": 0.03},
    "lora": {"steps": 20, "learning_rate": 1e-2},
    "f_learning": {"steps": 20, "learning_rate": 3e-3, "old_steps": 2},
    "geoedit": {"steps": 20, "learning_rate": 3e-3, "width": 0, "least": 0, "forgetting": 0.1},
}
METHODS = [method.name for method in editors]


@pytest.fixture(params=METHODS)
def method(request):
    return editors.get(request.param)


def solve(method, family, facts=FACTS, settings=None, **more):
    model, tokenizer = family
    config = method.config.model_validate(settings or QUICK.get(method.name, {}))
    around = Surroundings(moments=Moments(lambda: (model, tokenizer), TEXTS), **more)
    return method.call(model, tokenizer, facts, config, around)


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_learns_and_leaves_the_model_as_it_was(method, family):
    model, tokenizer = family
    before = weights_of(model)
    pairs = [(fact.prompt, fact.target_new) for fact in FACTS]
    old = score_targets(model, tokenizer, pairs)
    delta = solve(method, family)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert not any(weight.requires_grad for weight in model.parameters())
    with applied(model, delta):
        new = score_targets(model, tokenizer, pairs)
    assert all(b.log_prob > a.log_prob + 0.1 for a, b in zip(old, new, strict=True))
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_the_delta_names_matrices_of_the_model(method, family):
    model, _ = family
    weights = dict(model.named_parameters())
    delta = solve(method, family)
    assert delta
    for name, change in delta.changes.items():
        assert change.shape == weights[name].shape
    embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    assert not embeddings & {id(weights[name]) for name in delta.changes}


def test_the_same_request_gives_the_same_bits(method, tiny):
    first, second = solve(method, tiny), solve(method, tiny)
    assert first.changes.keys() == second.changes.keys()
    for name, change in first.changes.items():
        assert all(torch.equal(a, b) for a, b in zip(change.tensors(), second.changes[name].tensors(), strict=True))


def test_no_facts_no_change(method, tiny):
    assert not solve(method, tiny, facts=())


def test_settings_are_closed(method):
    from perdure.workspace.runs import resolve_config

    with pytest.raises(SettingError, match=f"editor {method.name}"):
        resolve_config(method, {"no_such_setting": 1})


def test_keys_fit_their_matrices_and_count_the_facts(method, family):
    model, _ = family
    layout = layout_of(model)
    sizes = {projection.name: projection.d_in for projection in layout.mlp_out}
    for name, key_IN in solve(method, family).keys.items():
        assert key_IN.shape == (sizes[name], len(FACTS))


def test_batches_go_on_where_they_stopped(method, tiny):
    model, tokenizer = tiny
    config = method.config.model_validate(QUICK.get(method.name, {}))
    around = Surroundings(moments=Moments(lambda: (model, tokenizer), TEXTS))
    seen = []
    common = dict(batch_size=1, around=around)
    whole = edit_in_batches(model, tokenizer, FACTS, method, config, on_batch=seen.append, **common)
    assert [now.done for now in seen] == [1, 2]
    resumed = edit_in_batches(model, tokenizer, FACTS, method, config, start=[seen[0].batch], **common)
    weights = dict(model.named_parameters())
    for name, change in whole.changes.items():
        assert torch.equal(changed(weights[name], change), changed(weights[name], resumed.changes[name]))


def test_an_interrupted_batch_leaves_the_model_as_it_was(method, tiny):
    model, tokenizer = tiny
    before = weights_of(model)

    def interrupt(_stage, done, _total):
        if done:
            raise KeyboardInterrupt

    config = method.config.model_validate(QUICK.get(method.name, {}))
    around = Surroundings(moments=Moments(lambda: (model, tokenizer), TEXTS), progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        edit_in_batches(model, tokenizer, FACTS, method, config, batch_size=2, around=around)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("name", ["memit", "alphaedit", "rome"])
def test_two_facts_about_one_subject_are_learnt_together_as_well_as_alone(name, tiny):
    model, tokenizer = tiny
    method = editors.get(name)
    settings = {
        **QUICK[name],
        "values": QUICK["memit"]["values"],
        **({"null_share": 0.9} if name == "alphaedit" else {}),
    }
    pairs = [(fact.prompt, fact.target_new) for fact in TWINS]

    def scores(delta):
        with applied(model, delta):
            return torch.tensor([score.mean_log_prob for score in score_targets(model, tokenizer, pairs)])

    before = scores(Delta())
    alone = [scores(solve(method, tiny, [fact], settings))[place] for place, fact in enumerate(TWINS)]
    together = solve(method, tiny, TWINS, settings)
    learnt = scores(together) - before
    assert (learnt > 0.2).all()
    assert learnt.sum() > 0.7 * (torch.stack(alone) - before).sum()
    assert all(change.low_rank.rank == 1 for change in together.changes.values())
    assert len(together.notes["value_losses"]) == 2
    assert torch.equal(*(together.values[fact.id] for fact in TWINS))


def test_previous_keys_are_kept_from_moving(tiny):
    """MEMIT-Seq: with the keys of the first fact in the bracket, the second edit moves its outputs less."""
    method = editors.get("memit")
    model, _ = tiny
    first = solve(method, tiny, facts=FACTS[:1])
    with applied(model, first):
        free = solve(method, tiny, facts=FACTS[1:])
        kept = solve(method, tiny, facts=FACTS[1:], previous_keys={n: k * 50 for n, k in first.keys.items()})
    for name, key_IN in first.keys.items():
        moved = (free.changes[name].value() @ key_IN.double()).norm()
        assert (kept.changes[name].value() @ key_IN.double()).norm() < 0.2 * moved


@pytest.mark.parametrize("name", ["memit", "alphaedit"])
def test_a_fact_that_was_changed_often_takes_another_answer(name, tiny):
    """Its keys are protected once for each time; none of them may hold the next answer back."""
    method = editors.get(name)
    old = solve(method, tiny, FACTS[:1])
    often = {matrix: key_IN.repeat(1, 15) for matrix, key_IN in old.keys.items()}
    again = solve(method, tiny, FACTS[:1], previous_keys=often)
    for matrix, change in old.changes.items():
        torch.testing.assert_close(again.changes[matrix].value(), change.value(), rtol=1e-4, atol=1e-6)


def test_subtracting_what_was_added_gives_nothing(method, tiny):
    delta = solve(method, tiny)
    for change in (delta - delta).changes.values():
        assert float(change.value().abs().max()) < 1e-6
    assert not Delta()


def test_without_a_fact_it_is_gone_and_the_other_stays(method, tiny):
    """Done again without a fact, from what the editor kept: as if that fact had never been taught."""
    model, tokenizer = tiny
    pairs = [(fact.prompt, fact.target_new) for fact in FACTS]

    def rise(delta):
        with applied(model, delta):
            now = score_targets(model, tokenizer, pairs)
        return [b.log_prob - a.log_prob for a, b in zip(score_targets(model, tokenizer, pairs), now, strict=True)]

    whole = solve(method, tiny)
    left = solve(method, tiny, facts=FACTS[1:], values=whole.values)
    had, has = rise(whole), rise(left)
    assert has[0] < 0.5 * had[0]
    assert has[1] > 0.5 * had[1]
    assert left.values.keys() == whole.values.keys() - {FACTS[0].id}
    assert all(key_IN.shape[1] == 1 for key_IN in left.keys.values())

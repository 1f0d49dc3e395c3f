import shutil

import pytest
import torch

from perdure.content import cache_folder
from perdure.deltas import Change, Delta, changed
from perdure.editing import Moments, Surroundings, edit_in_batches, statistics
from perdure.editing.method import batch_spans
from perdure.models import layout_of
from perdure.registry import editors
from perdure.requests import Fact

FACTS = tuple(
    Fact(subject=name, prompt=f"{name} lives in", target_new=place)
    for name, place in [("Ada", "Rome"), ("Lyon", "Peru"), ("Mira", "Bonn"), ("Orlan", "Oslo"), ("Nia", "Kyiv")]
)
TEXTS = ["The twin city of Lyon is Beirut, and the Nile is in Egypt. " * 4]
MEMIT = editors.get("memit")
QUICK = MEMIT.config.model_validate({"values": {"steps": 3}, "contexts": 0})


def run(tiny, **more):
    model, tokenizer = tiny
    around = Surroundings(moments=Moments(lambda: (model, tokenizer), TEXTS))
    return edit_in_batches(model, tokenizer, FACTS, MEMIT, QUICK, batch_size=2, around=around, **more)


def bits(delta):
    return [tensor for change in delta.changes.values() for tensor in change.tensors()]


def test_an_edit_taken_up_after_any_batch_gives_the_same_bits(tiny):
    seen = []
    whole = run(tiny, on_batch=seen.append)
    assert [now.done for now in seen] == [2, 4, 5]
    for done in (1, 2, 3):
        told = []
        again = run(tiny, start=[now.batch for now in seen[:done]], on_batch=told.append)
        assert [now.done for now in told] == [2, 4, 5]
        assert [now.known for now in told] == [place < done for place in range(3)]
        assert all(torch.equal(a, b) for a, b in zip(bits(whole), bits(again), strict=True))
        assert len(again.notes["batches"]) == 3


def test_second_moments_are_those_of_the_model_without_edits(tiny, monkeypatch):
    """Taken once, also where the first batches were solved before and the model carries them by then."""
    model, tokenizer = tiny
    seen = []
    whole = edit_in_batches(
        model, tokenizer, FACTS, MEMIT, QUICK, batch_size=2, around=Surroundings(), on_batch=seen.append
    )
    shutil.rmtree(cache_folder() / "moments")
    calls = []
    real = statistics.second_moments
    monkeypatch.setattr(statistics, "second_moments", lambda *given, **more: calls.append(1) or real(*given, **more))
    again = edit_in_batches(
        model, tokenizer, FACTS, MEMIT, QUICK, batch_size=2, around=Surroundings(), start=[seen[0].batch]
    )
    assert len(calls) == 1
    assert all(torch.equal(a, b) for a, b in zip(bits(whole), bits(again), strict=True))


def test_the_model_comes_back_whatever_a_restraint_names(tiny):
    model, _ = tiny
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    extra = Delta({"model.layers.0.self_attn.q_proj.weight": Change(dense=torch.ones(32, 32))})
    run(tiny, restrain=lambda total: total + extra)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_an_edit_ends_where_it_is_told_to(tiny):
    model, _ = tiny
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    part = run(tiny, on_batch=lambda now: now.done >= 4)
    assert all(change.low_rank.rank == 4 for change in part.changes.values())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_a_restraint_inside_is_what_later_batches_stand_on(tiny):
    """Half of everything solved is carried after each batch; the model holds just that, in one sum."""
    model, _ = tiny
    names = {projection.name for projection in layout_of(model).mlp_out}
    own = {name: weight.detach().clone() for name, weight in model.named_parameters() if name in names}
    held = []

    def look(now):
        carried = {name: changed(own[name], change) for name, change in now.step.changes.items()}
        held.append(all(torch.equal(dict(model.named_parameters())[name], weight) for name, weight in carried.items()))
        for name, change in now.step.changes.items():
            torch.testing.assert_close(change.value(), now.total.changes[name].value() / 2)

    restrained = run(tiny, restrain=lambda total: total * 0.5, on_batch=look)
    assert held == [True, True, True]
    free = run(tiny)
    first = slice(0, 2)
    for name, change in restrained.changes.items():  # the first batch is the same, later ones see another model
        assert torch.equal(change.low_rank.left[:, first], free.changes[name].low_rank.left[:, first])
    assert not all(torch.equal(a, b) for a, b in zip(bits(restrained), bits(free), strict=True))


@pytest.mark.parametrize(("count", "size", "spans"), [(5, 2, [(0, 2), (2, 4), (4, 5)]), (3, [1, 2], [(0, 1), (1, 3)])])
def test_batches_cover_all_facts_once(count, size, spans):
    assert [(span.start, span.stop) for span in batch_spans(count, size)] == spans


def test_nothing_to_do_is_nothing_done(tiny):
    model, tokenizer = tiny
    assert edit_in_batches(model, tokenizer, (), MEMIT, QUICK, batch_size=2, around=Surroundings()) == Delta()

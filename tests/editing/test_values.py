import pytest
import torch
from bench.values import plain_values

from perdure.editing import subjects
from perdure.editing.subjects import (
    Contexts,
    companions,
    last_mention,
    sample_contexts,
    subject_states,
    target_rows,
)
from perdure.editing.values import ValueConfig, clip_norm, find_values
from perdure.errors import RequestError
from perdure.models import layout_of
from perdure.requests import Fact

FACTS = [
    Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila"),
    Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch"),
    Fact(subject="the Nile", prompt="Where does one find the Nile? In", target_new="Peru"),
]
LAYER = 1


def anchors(model, tokenizer, contexts):
    rows = target_rows(tokenizer, FACTS, contexts)
    return subject_states(model, layout_of(model), rows, contexts.weights(), layers=[LAYER], last=LAYER).block


def test_fast_loop_takes_the_path_of_the_plain_loop(family):
    model, tokenizer = family
    contexts = sample_contexts(2)
    config = ValueConfig(steps=6, learning_rate=0.1)
    at = anchors(model, tokenizer, contexts)
    plain = plain_values(model, tokenizer, FACTS, LAYER, at, contexts, config)
    for chunk in (1, 10_000):
        fast = find_values(
            model, tokenizer, FACTS, LAYER, at, contexts=contexts, config=config, chunk_tokens=chunk
        ).shift
        assert ((fast - plain).norm(dim=1) / plain.norm(dim=1)).max() < 1e-4


def test_facts_that_are_done_leave_and_the_others_go_on(tiny):
    model, tokenizer = tiny
    contexts = Contexts()
    at = anchors(model, tokenizer, contexts)
    config = ValueConfig(steps=12, learning_rate=0.5, stop_loss=5.6, clamp=50, weight_decay=0)
    found = find_values(model, tokenizer, FACTS, LAYER, at, contexts=contexts, config=config)
    plain = plain_values(model, tokenizer, FACTS, LAYER, at, contexts, config)
    assert len(set(found.steps)) > 1
    assert all(loss < 5.6 for loss, step in zip(found.losses, found.steps, strict=True) if step < 11)
    torch.testing.assert_close(found.shift, plain, rtol=1e-3, atol=1e-4)


def test_an_earlier_fact_of_the_same_site_is_searched_for_as_if_it_were_taught_now(tiny):
    model, tokenizer = tiny
    old, new = Fact(subject="Ada", prompt="Ada eats", target_new="rice"), FACTS[1]
    other = Fact(subject="Ada", prompt="Here Ada speaks", target_new="Latin")
    at, config = anchors(model, tokenizer, Contexts())[1:2], ValueConfig(steps=6, learning_rate=0.5)
    told = []

    def search(facts, **more):
        return find_values(
            model, tokenizer, facts, LAYER, at.expand(len(facts), -1), contexts=Contexts(), config=config, **more
        )

    alone = search([new])
    beside = search([new], beside=[other, old], on_done=told.append)
    assert told == [1]
    assert len(beside.losses) == len(beside.steps) == len(beside.shift) == 1
    together = search([new, old])
    torch.testing.assert_close(beside.shift, together.shift[:1])
    assert beside.losses[0] == pytest.approx(together.losses[0])
    assert not torch.allclose(beside.shift, alone.shift, atol=1e-3)


def test_earlier_facts_that_begin_alike_are_kept_unless_they_are_overwritten():
    def ada(prompt, answer):
        return Fact(subject="Ada", prompt=prompt, target_new=answer)

    eats, speaks, again, told = (
        ada(*words)
        for words in [("Ada eats", "rice"), ("Ada speaks", "Latin"), ("Ada eats", "figs"), ("Here Ada speaks", "Welsh")]
    )
    assert companions([FACTS[1]], [eats, speaks, FACTS[0], again, told]) == [again]
    assert companions([FACTS[0]], [eats, speaks]) == []


def test_earlier_facts_that_have_no_rows_are_left_out(monkeypatch):
    def rows(_tokenizer, facts, _contexts):
        if facts == [FACTS[1]]:
            raise RequestError("the tokenizer joins the answer to the subject's last token")

    monkeypatch.setattr(subjects, "target_rows", rows)
    assert subjects.with_rows(None, FACTS, Contexts()) == [FACTS[0], FACTS[2]]


def test_kl_term_is_zero_where_nothing_is_shifted(tiny):
    model, tokenizer = tiny
    at = anchors(model, tokenizer, Contexts())
    losses = [
        find_values(
            model, tokenizer, FACTS, LAYER, at, contexts=Contexts(), config=ValueConfig(stop_loss=1e9, kl_weight=weight)
        ).losses
        for weight in (0.0, 1000.0)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_search_of_one_look_would_do_nothing_and_is_refused():
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        ValueConfig(steps=1)


@pytest.mark.parametrize(
    ("text", "subject", "end"),
    [
        ("Java is older than JavaScript and was created by", "Java", 4),
        ("Java and Java run on", "Java", 13),
        ("JavaScript runs on", "Java", 4),
        ("Ada's house and the Adas", "Ada", 3),
        ("東京は首都で、東京タワーは", "東京", 9),
        ("JavaはJavaScript", "Java", 4),
    ],
)
def test_the_last_mention_is_no_part_of_a_longer_word(text, subject, end):
    assert last_mention(text, subject) == end


def test_clip_holds_and_leaves_short_rows_alone():
    shift = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    clipped = clip_norm(shift, torch.tensor([1.0, 1.0]))
    assert clipped[0].norm() == pytest.approx(1.0)
    assert torch.equal(clipped[1], shift[1])


def test_shift_never_leaves_the_ball(tiny):
    model, tokenizer = tiny
    at = anchors(model, tokenizer, Contexts())
    config = ValueConfig(steps=8, learning_rate=2.0, clamp=0.3)
    shift = find_values(model, tokenizer, FACTS, LAYER, at, contexts=Contexts(), config=config).shift
    assert (shift.norm(dim=1) <= 0.3 * at.float().norm(dim=1) * (1 + 1e-5)).all()


def test_the_model_is_left_as_it_was(tiny):
    model, tokenizer = tiny
    ids = torch.tensor([[1, 2, 3, 4]])
    before = model(ids).logits
    at = anchors(model, tokenizer, Contexts())
    find_values(model, tokenizer, FACTS, LAYER, at, contexts=Contexts(), config=ValueConfig(steps=2))
    assert torch.equal(model(ids).logits, before)


def test_the_more_facts_the_shorter_each_shift():
    config = ValueConfig()
    assert config.radius(1) == config.radius(20) == 0.75
    assert config.radius(640) == pytest.approx(0.75 / 2)  # 32 times as many: the fifth root is a half
    assert ValueConfig(clamp=0.5).radius(10_000) == 0.5


def test_facts_carried_shorten_the_shifts(tiny):
    model, tokenizer = tiny
    at = anchors(model, tokenizer, Contexts())
    config = ValueConfig(steps=8, learning_rate=2.0)
    few, many = (
        find_values(model, tokenizer, FACTS, LAYER, at, contexts=Contexts(), config=config, carried=carried).shift
        for carried in (0, 640)
    )
    reach = at.float().norm(dim=1)
    assert (few.norm(dim=1) > 0.5 * reach).all()
    assert (many.norm(dim=1) <= 0.375 * reach * (1 + 1e-5)).all()

"""Advice before training: costs on paper against worked cases, likeness, settings, and a probe that leaves no trace."""

import random

import pytest
import torch

import tiny as models
import tuning_tasks
from perdure.measuring import task_likeness
from perdure.measuring.advice import Duplicates, GroupAdvice
from perdure.measuring.task_likeness import feature_overlap, near_duplicates, read_imprint, shown_rows
from perdure.measuring.tuning_costs import (
    Shape,
    Work,
    activation_bytes,
    activation_numbers,
    anchors_flop,
    averaging_flop,
    forward_flop,
    logit_bytes,
    memory_of,
    term_cost,
    training_flop,
    work_of,
)
from perdure.measuring.tuning_probe import Probed, probe_tuning, shape_of, typical_batch
from perdure.measuring.tuning_proposals import Situation, advise_pool, cost_of, propose, settings_from
from perdure.tuning.config import TuningConfig
from perdure.tuning.encoding import collate, row_of, rows_of
from perdure.tuning.forward import forward
from perdure.tuning.regularizer import Surroundings
from perdure.tuning.regularizers.function_vector import FunctionVectorConfig, task_vector
from perdure.tuning.run import attached, pairs_of


def decoder(*, weights, layers, width, inner, heads, kv_heads):
    """A Llama in half precision, all projections trained."""
    keys = kv_heads * 128
    block = [
        (width, width),
        (keys, width),
        (keys, width),
        (width, width),
        (inner, width),
        (inner, width),
        (width, inner),
    ]
    sizes = dict(layers=layers, width=width, inner=inner, heads=heads, kv_heads=kv_heads, head_dim=128)
    return Shape(weights=weights, vocabulary=32000, matrices=tuple(block * layers), bytes_per_weight=2, **sizes)


SEVEN = decoder(weights=6_738_415_616, layers=32, width=4096, inner=11008, heads=32, kv_heads=32)
SEVENTY = decoder(weights=68_976_648_192, layers=80, width=8192, inner=28672, heads=64, kv_heads=8)
# 1,000 rows of 200 tokens, 40 of them learnt, three passes in batches of 16
WORK = Work(
    rows=1000, tokens=200_000, learnt=40_000, padded=200_000, batches=63, steps=189, batch_tokens=3200,
    batch_learnt=640, earlier=1,
)  # fmt: skip
LORA = TuningConfig()
FULL = TuningConfig(method="full")
USUAL = {"regularizers": [{"kind": "function_vector"}, {"kind": "distillation"}], "averaging": {"form": "sound"}}


@pytest.mark.parametrize(
    ("shape", "adapters", "lora_flop", "full_flop"),
    [
        # 7B: 4 · 6.738e9 + 6 · 19,988,480 = 2.7073592e10 a token; 4 · 6.738e9 + 2 · 6,476,005,376 = 3.9905673e10
        (SEVEN, 19_988_480, 2.7073593344e10, 3.9905673216e10),
        # 70B: 4 · 6.898e10 + 6 · 103,546,880 = 2.7652787e11; 4 · 6.898e10 + 2 · 68,451,041,280 = 4.1280868e11
        (SEVENTY, 103_546_880, 2.76527874048e11, 4.12808675328e11),
    ],
)
def test_operations_of_llama(shape, adapters, lora_flop, full_flop):
    assert shape.adapter_numbers(8) == adapters
    assert training_flop(shape, LORA, 1) == lora_flop
    assert training_flop(shape, FULL, 1) == full_flop
    again = training_flop(shape, TuningConfig(gradient_checkpointing=True), 1)
    assert again - lora_flop == forward_flop(shape.weights, 1) == 2.0 * shape.weights


def test_memory_of_llama_7b():
    # a block keeps 4·4096 + 2·64·128 + 4·11008 = 76,800 numbers a token
    assert activation_numbers(SEVEN) == 76_800
    memory = memory_of(SEVEN, LORA, WORK)
    assert memory.weights == 13_476_831_232
    assert (memory.trained, memory.gradients, memory.optimizer) == (79_953_920, 79_953_920, 159_907_840)
    assert memory.activations == 3200 * 32 * 76_800 * 2 == 15_728_640_000
    assert memory.logits == 640 * 32_000 * (2 * 2 + 12) == 327_680_000
    assert memory.total == 29_852_966_912
    # checkpointed: 32 inputs of 4096 and one block's 76,800 numbers, in two bytes each
    assert activation_bytes(SEVEN, 3200, checkpointing=True) == 3200 * (32 * 4096 + 76_800) * 2 == 1_330_380_800
    # all weights of the blocks: float32 masters, gradients and two moments of 6,476,005,376 numbers
    full = memory_of(SEVEN, FULL, WORK)
    assert full.trained + full.gradients + full.optimizer == 16 * 6_476_005_376


def test_memory_of_llama_70b():
    # a block keeps 4·8192 + 2·(64 + 8)·128 + 4·28672 = 165,888 numbers a token
    assert activation_numbers(SEVENTY) == 165_888
    memory = memory_of(SEVENTY, LORA, WORK)
    assert memory.weights == 137_953_296_384
    assert memory.activations == 84_934_656_000
    assert memory.trained + memory.gradients + memory.optimizer == 1_656_750_080
    assert activation_bytes(SEVENTY, 3200, checkpointing=True) == 3200 * (80 * 8192 + 165_888) * 2 == 5_255_987_200


def cost(config, shape=SEVEN, work=WORK):
    [(name, term)] = config.terms()
    return term_cost(name, term, shape, config, work)


def with_term(**term):
    return TuningConfig(regularizers=(term,))


def test_what_regularizers_add_at_7b():
    # heads: 1,000 rows · 10 heads · 128 · 4 B; answers: 40,000 tokens · (64 · 4 + 65 · 4) B
    found = cost(with_term(kind="function_vector"))
    assert found.target_bytes == 5_120_000 + 20_640_000
    assert found.once_flop == 2.0 * SEVEN.weights * (2 * 200_000 + 20 * 250)
    found = cost(with_term(kind="distillation"))
    assert (found.target_bytes, found.step_flop) == (20_640_000, 0)
    assert found.once_flop == 2.0 * SEVEN.weights * 200_000
    assert found.device_bytes == 12 * 32_000 * 640
    # five blocks of 4096 float16 numbers for 200,000 tokens
    assert cost(with_term(kind="feature_distance")).target_bytes == 8_192_000_000
    live = cost(with_term(kind="feature_distance", cached=False))
    assert live.target_bytes == live.once_flop == 0
    assert live.step_flop == pytest.approx(2.0 * SEVEN.weights * 200_000 / 63)


def test_general_text_counts_as_rows():
    config = TuningConfig(anchors=2, batch_size=4, regularizers=({"kind": "distillation", "on": "anchors"},))
    work = work_of([10, 10], [1, 1], config)
    assert (work.rows, work.tokens, work.learnt, work.anchors) == (4, 148, 128, 2)
    assert (work.batches, work.padded, work.batch_tokens, work.batch_learnt) == (1, 3 * 64, 3 * 64, 2 + 63)
    assert cost(config, work=work).once_flop == 2.0 * SEVEN.weights * 128
    assert cost(config, work=work).target_bytes == 126 * (64 * 4 + 65 * 4)
    task = TuningConfig(anchors=2, regularizers=({"kind": "distillation", "on": "task"},))
    assert cost(task, work=work).target_bytes == 2 * (64 * 4 + 65 * 4)


def test_rows_of_its_own_are_written_first():
    assert anchors_flop(SEVEN, with_term(kind="l2sp").model_copy(update={"anchors": 3})) == 2.0 * SEVEN.weights * 240
    read = with_term(kind="l2sp").model_copy(update={"anchors": 3, "anchor_source": "passages"})
    assert anchors_flop(SEVEN, read) == 0


def test_ewc_costs_in_batches_from_the_second_task_on():
    later = cost(with_term(kind="ewc"))
    assert later.step_flop == (6 * 8 + 6) * 6_476_005_376
    assert later.once_flop == 200_000 * 0.064 * (4.0 * SEVEN.weights + 2.0 * 6_476_005_376)
    first = cost(with_term(kind="ewc"), work=Work(**{**vars(WORK), "earlier": 0}))
    assert (first.step_flop, first.device_bytes, first.once_flop) == (0, 0, later.once_flop)


def test_kfac_costs_by_what_was_learnt_and_by_the_anchors():
    sides = SEVEN.adapter_numbers(1)
    first = cost(with_term(kind="kfac"), work=Work(**{**vars(WORK), "earlier": 0}))
    assert (first.step_flop, first.device_bytes) == (0, 0)
    shown = cost(with_term(kind="kfac"), work=Work(**{**vars(WORK), "earlier": 0, "anchors": 2}))
    assert shown.step_flop == 6 * 8 * 16 * sides
    assert shown.device_bytes == 4 * 16 * sides
    assert shown.once_flop - first.once_flop == 2 * 64 * (4.0 * SEVEN.weights + 16 * 16 * sides)
    later = cost(with_term(kind="kfac"), work=Work(**{**vars(WORK), "earlier": 3, "anchors": 2}))
    assert later.step_flop == 4 * shown.step_flop
    assert later.once_flop == first.once_flop


def test_nobody_worked_out_a_stranger():
    assert term_cost("of a third party", TuningConfig(), SEVEN, LORA, WORK) is None


def test_averaging_takes_a_gradient_more_than_there_are_groups():
    sound = TuningConfig(averaging={"form": "sound", "groups": 8, "rows": 32})
    wanted = 9 * training_flop(SEVEN, LORA, 6400) + 6 * forward_flop(SEVEN.weights, 6400)
    assert averaging_flop(SEVEN, sound, WORK) == pytest.approx(wanted)
    assert averaging_flop(SEVEN, LORA, WORK) == 0


def test_padding_is_counted_batch_by_batch():
    config = TuningConfig(batch_size=2, epochs=2)
    work = work_of([10, 10, 10, 10, 4], [1, 2, 3, 4, 5], config)
    assert (work.tokens, work.learnt, work.batches, work.steps) == (44, 15, 3, 6)
    assert work.padded in (44, 50)  # the short row alone, or beside a long one
    assert (work.batch_tokens, work.batch_learnt) == (20, 9)
    assert work_of([10] * 5, [1] * 5, TuningConfig(batch_size=2, accumulation=2, max_steps=2)).steps == 4


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_activations_are_those_that_autograd_keeps(kind, tokenizer):
    """Counted in float32: every storage once, weights aside; the estimate is for blocks only."""
    model = models.FAMILIES[kind]()
    config = TuningConfig(rank=1)
    batch = collate(rows_of(tokenizer, tuning_tasks.UPPER.train * 4, 512), range(32))
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with attached(model, config) as (network, _):
        own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            forward(network, batch).losses().mean()
    tokens = batch.inputs["input_ids"].numel()
    vocabulary = model.get_output_embeddings().weight.shape[0]
    held = sum(
        tensor.untyped_storage().nbytes()
        for place, tensor in kept.items()
        if place not in own and vocabulary not in tensor.shape
    )
    estimate = activation_bytes(shape_of(model, config), tokens, checkpointing=False)
    assert held / estimate == pytest.approx(1, abs=0.3)


def situation(**changed):
    known = dict(
        lengths=[60] * 64, learnt=[5] * 64, longest=60, shape=SEVEN, positions=4096, memory=80 * 10**9, heads=True,
        already=0.2, earlier=0,
    )  # fmt: skip
    return Situation(**known | changed)


def proposed(given=None, **changed):
    found = propose(situation(**changed), given or {}, USUAL)
    return {one.name: one.value for one in found}, {one.name: one.reason for one in found}


def test_settings_of_a_small_task():
    values, reasons = proposed()
    assert (values["batch_size"], values["accumulation"], values["gradient_checkpointing"]) == (4, 1, False)
    assert (values["rank"], values["max_tokens"], values["epochs"], values["learning_rate"]) == (8, 1024, 5, 2e-4)
    assert [term["kind"] for term in values["regularizers"]] == ["function_vector", "distillation"]
    assert all(reasons.values())


def test_less_memory_means_smaller_batches_then_checkpointing():
    rows = dict(lengths=[1000] * 1000, learnt=[5] * 1000, longest=1000)
    values, _ = proposed(**rows)
    assert (values["batch_size"], values["accumulation"]) == (8, 2)
    values, reasons = proposed(**rows, memory=19 * 10**9)
    assert (values["batch_size"], values["accumulation"], values["gradient_checkpointing"]) == (2, 8, True)
    assert "third more time" in reasons["gradient_checkpointing"]
    values, reasons = proposed(**rows, memory=10**9)
    assert values["batch_size"] == 1
    assert "not enough" in reasons["batch_size"]


def test_long_rows_raise_the_limit_as_far_as_the_model_reads():
    assert proposed(longest=1100)[0]["max_tokens"] == 1152
    values, reasons = proposed(longest=5000)
    assert values["max_tokens"] == 4096
    assert "shorten" in reasons["max_tokens"]
    values, reasons = proposed(longest=600, positions=512)
    assert values["max_tokens"] == 512
    assert "shorten" in reasons["max_tokens"]


def test_many_answer_tokens_take_a_higher_rank():
    small = situation(shape=decoder(weights=10**6, layers=1, width=64, inner=128, heads=1, kv_heads=1))
    assert propose(small, {}, {})[1].value == 8
    tokens = small.shape.adapter_numbers(16)
    more = Situation(**{**vars(small), "learnt": [tokens]})
    assert {one.name: one.value for one in propose(more, {}, {})}["rank"] == 16


def test_what_is_known_already_needs_little():
    values, reasons = proposed(already=0.95)
    assert values["epochs"] == 1
    assert "95% right already" in reasons["epochs"]


def test_without_heads_nothing_is_held_by_them():
    assert [term["kind"] for term in proposed(heads=False)[0]["regularizers"]] == ["distillation"]


def test_what_was_given_stays():
    values, reasons = proposed({"epochs": 7, "method": "full", "batch_size": 2})
    assert (values["epochs"], reasons["epochs"]) == (7, "as given")
    assert values["batch_size"] == 2
    assert values["learning_rate"] == pytest.approx(2e-5)
    assert "rank" not in values
    config = settings_from(propose(situation(), {"epochs": 7}, USUAL), {"epochs": 7}, USUAL)
    assert (config.epochs, config.averaging.form) == (7, "sound")


@pytest.mark.parametrize(
    ("given", "memory", "found"),
    [
        ({"batch_size": 16}, 25, (16, 1, True)),
        ({"batch_size": 16, "accumulation": 2}, 25, (16, 2, True)),
        ({"accumulation": 4}, 80, (4, 4, False)),
        ({"accumulation": 4}, 40, (2, 4, False)),
        ({"gradient_checkpointing": False}, 19, (1, 16, False)),
        ({"gradient_checkpointing": True}, 40, (16, 1, True)),
    ],
)
def test_the_rest_of_a_step_is_chosen_for_what_was_given(given, memory, found):
    """And the reasons are of the steps that come of both."""
    values, reasons = proposed(given, lengths=[1000] * 1000, learnt=[5] * 1000, longest=1000, memory=memory * 10**9)
    assert (values["batch_size"], values["accumulation"], values["gradient_checkpointing"]) == found
    rows = found[0] * found[1]
    assert reasons["batch_size"] == "as given" or f"{-(-1000 // rows)} steps an epoch" in reasons["batch_size"]
    assert reasons["accumulation"] in ("as given", f"{rows} rows a step")


def test_a_contradiction_is_better_kept_apart():
    group = GroupAdvice(group="g2", reason="opens g2")
    against = Duplicates(task="old", rows=3, conflicting=2, examples=())
    found = advise_pool(group, [against], pooled=False, full=False)
    assert found.value is True
    assert "2 rows contradict old" in found.reason
    assert advise_pool(group, [against], pooled=False, full=True).value is False
    harmless = Duplicates(task="old", rows=3, conflicting=0, examples=())
    assert advise_pool(group, [harmless], pooled=False, full=False).value is False
    assert advise_pool(group, [], pooled=True, full=False).value is True


def test_seconds_follow_from_the_probe():
    config = TuningConfig(batch_size=16, regularizers=({"kind": "l2sp"},), epochs=2)
    known = situation(lengths=[100] * 32, learnt=[5] * 32)
    found = cost_of(known, config, Probed(rows=4, tokens=400, seconds=2.0, terms={"l2sp": 2.5}))
    assert found.tokens == 6400
    assert found.once_flop == 0
    assert found.seconds == pytest.approx(6400 / 400 * 2.0 * 1.25)
    assert found.terms[0].measured_share == 0.25
    assert cost_of(known, config, None).seconds is None
    # what is done once goes at the speed of a plain step
    sound = TuningConfig(batch_size=16, epochs=2, averaging={"form": "sound", "groups": 1, "rows": 32})
    found = cost_of(known, sound, Probed(rows=4, tokens=400, seconds=2.0, terms={}))
    speed = training_flop(SEVEN, LORA, 400) / 2.0
    losses = 6 * forward_flop(SEVEN.weights, 3200) / speed
    assert found.seconds == pytest.approx((6400 + 2 * 3200) / 400 * 2.0 + losses)


def test_a_task_overlaps_with_itself_and_not_with_its_opposite():
    drawn = torch.Generator().manual_seed(0)
    shared_LD = 10 * torch.randn(2, 16, generator=drawn, dtype=torch.float64)  # what all texts have in common
    task_LD = torch.randn(2, 16, generator=drawn, dtype=torch.float64)
    others_ILD = torch.stack([shared_LD + task_LD, shared_LD - task_LD, shared_LD - task_LD])
    same, opposite, _ = feature_overlap(shared_LD + task_LD, others_ILD).tolist()
    assert (same, opposite) == (pytest.approx(1), pytest.approx(-1))
    rescaled = feature_overlap(7 * (shared_LD + task_LD), 7 * others_ILD)
    assert rescaled.tolist() == pytest.approx([1, -1, -1])


def test_near_duplicates_are_found_by_their_words():
    known = ["May I return a lamp that I bought last week?", "Lyon", "Something quite different from the rest"]
    asked = ["may I return a lamp that I bought, last week", "Who pays for the parcel to the customer?", "lyon.", ""]
    found = near_duplicates(asked, known)
    assert [(place, other) for place, other, _ in found] == [(0, 0), (2, 1)]
    assert found[0][2] == 1
    # 8 shingles each, 6 of them common, 10 in all
    one, other = "a b c d e f g h i j", "a b c d e f g h x y"
    assert near_duplicates([one], [other], least=0) == [(0, 0, pytest.approx(0.6))]
    assert near_duplicates([one], [other]) == []
    assert near_duplicates([one], [other, one, one]) == [(0, 1, 1)]


def test_near_duplicates_are_those_of_every_pair_compared():
    drawn = random.Random(0)
    words = list("abcdef")
    known, asked = ([" ".join(drawn.choices(words, k=drawn.randint(0, 9))) for _ in range(40)] for _ in "12")
    for least in (0.2, 0.5, 0.8, 1.0):
        pairs = [near_duplicates([one], [other], least=0) for one in asked for other in known]
        alike = [[found[0][2] if found else 0 for found in pairs[at : at + 40]] for at in range(0, 1600, 40)]
        wanted = [(at, row.index(max(row)), max(row)) for at, row in enumerate(alike) if max(row) >= least]
        assert near_duplicates(asked, known, least=least) == wanted


def test_what_all_questions_share_costs_nothing(monkeypatch):
    """Every pair has the instruction in common: 40,000 of them here, and millions in a task."""
    drawn, words, compared = random.Random(0), [f"w{place}" for place in range(2000)], []
    beginning = "Name the department that must answer this message: "
    rows = [beginning + " ".join(drawn.choices(words, k=20)) for _ in range(400)]
    monkeypatch.setattr(task_likeness, "_jaccard", lambda *pair: compared.append(pair) or 0.0)
    assert near_duplicates(rows[:200], rows[200:]) == []
    assert len(compared) < 100


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_imprint_has_the_vector_that_training_is_guided_by(kind, tokenizer):
    model, pairs = models.FAMILIES[kind](), pairs_of(tuning_tasks.UPPER.train)
    heads, config = [(1, 0), (2, 3), (2, 1)], FunctionVectorConfig(shots=2, prompts=4)
    rows = shown_rows(tokenizer, pairs, config)
    found = read_imprint(model, rows, heads)
    torch.testing.assert_close(
        found.vector_D, task_vector(model, tokenizer, pairs, heads, config), atol=1e-5, rtol=1e-4
    )
    assert found.n == len(rows) == 4
    assert found.states_LD.shape == (4, 32)
    assert 0 < float(found.states_LD.norm(dim=1).max()) <= 1 + 1e-6


def test_right_answers_are_counted(tokenizer):
    model = models.llama()
    row = row_of(tokenizer, tuning_tasks.UPPER.train[0])
    with torch.no_grad():
        best = int(model(torch.tensor([row.ids])).logits[0, row.asked].argmax())
    right = type(row)((*row.ids[: row.asked + 1], best), (*[False] * (row.asked + 1), True), row.asked)
    wrong = type(row)((*row.ids[: row.asked + 1], best + 1), right.learns, row.asked)
    assert read_imprint(model, [right, wrong, right], []).right == 2


def test_a_probe_leaves_the_model_as_it_was(tiny):
    model, tokenizer = tiny
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = TuningConfig(
        learning_rate=0.1, gradient_checkpointing=True, batch_size=3, anchors=2,
        regularizers=({"kind": "distillation", "on": "anchors"}, {"kind": "l2sp"}),
    )  # fmt: skip
    task = tuning_tasks.UPPER
    rows = rows_of(tokenizer, task.train, 512)
    for method in ("lora", "full"):
        chosen = config.model_copy(update={"method": method})
        state = torch.random.get_rng_state()
        found = probe_tuning(model, tokenizer, task, rows, chosen, Surroundings())
        assert torch.equal(state, torch.random.get_rng_state())
        assert found.rows == 3 + 1
        assert found.tokens >= 4 * min(len(row.ids) for row in rows)
        assert set(found.terms) == {"distillation", "l2sp"}
        assert found.seconds > 0
        now = model.state_dict()
        assert now.keys() == before.keys()
        assert all(torch.equal(now[name], before[name]) for name in before)
        assert not model.training
        assert not model.is_gradient_checkpointing


def test_memory_that_ran_out_is_no_measure(tiny, monkeypatch):
    def full(*_args, **_more):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("perdure.tuning.token_run.forward", full)
    model, tokenizer = tiny
    rows = rows_of(tokenizer, tuning_tasks.UPPER.train, 512)
    assert probe_tuning(model, tokenizer, tuning_tasks.UPPER, rows, TuningConfig(), Surroundings()) is None


def test_a_typical_batch_spans_the_lengths(tokenizer):
    rows = rows_of(tokenizer, tuning_tasks.UPPER.train, 512)
    lengths = sorted(len(row.ids) for row in rows)
    assert [len(row.ids) for row in typical_batch(rows, 2, None)] == [lengths[2], lengths[6]]
    assert len(typical_batch(rows, 8, 2 * lengths[-1])) == 2
    assert len(typical_batch(rows, 8, 1)) == 1


def test_logits_count_in_both_precisions():
    assert logit_bytes(SEVEN, 10) == 10 * 32_000 * 16

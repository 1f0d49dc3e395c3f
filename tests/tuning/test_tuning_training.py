"""From a task to a change: steps, accumulation, early stopping, and a model that comes back as it was."""

from types import SimpleNamespace

import pytest
import torch

import tiny
import tuning_tasks
from perdure.deltas import changed
from perdure.errors import ModelError, RequestError, SettingError, TuneError
from perdure.requests.tasks import Task
from perdure.tuning.config import TuningConfig
from perdure.tuning.encoding import collate, rows_of
from perdure.tuning.forward import forward
from perdure.tuning.run import target_modules, tune
from perdure.tuning.token_run import TokenRun
from perdure.tuning.trained import lora_attached
from perdure.tuning.trainer import AnchorsBeside

SHORT = dict(batch_size=4, epochs=2, learning_rate=1e-2, rank=2, alpha=4)
HEADS = {"kind": "function_vector", "heads": [[0, 1], [1, 2]], "shots": 2, "prompts": 2}
ON_ANCHORS = {"kind": "distillation", "on": "anchors"}
EVERY = (HEADS, *({"kind": kind} for kind in ("feature_distance", "distillation", "l2sp", "ewc", "kfac")))


@pytest.fixture
def small():
    return tiny.llama(num_hidden_layers=2)


@pytest.fixture
def teach(small, tokenizer):
    def taught(task=tuning_tasks.UPPER, model=small, around=None, work=None, **settings):
        more = {} if around is None else {"around": around}
        return tune(model, tokenizer, task, TuningConfig(**(SHORT | settings)), work=work, **more)

    return taught


def values(tuned):
    return {name: change.value() for name, change in tuned.delta.changes.items()}


def same(one, other, tolerance=0.0):
    first, second = values(one), values(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert float((value - second[name]).abs().max()) <= tolerance, name
    return True


def losses(tuned):
    return [entry["loss"] for entry in tuned.delta.notes["log"] if "loss" in entry]


def snapshot(model):
    flags = ("training", "gradient_checkpointing")
    return (
        {name: (weight.clone(), weight.dtype, weight.requires_grad) for name, weight in model.named_parameters()},
        {name: [getattr(part, flag, None) for flag in flags] for name, part in model.named_modules()},
        {name: type(part) for name, part in model.named_modules()},
        {name: len(part._forward_hooks) + len(part._forward_pre_hooks) for name, part in model.named_modules()},
        (model.config.to_dict(), hasattr(model, "peft_config"), "forward" in vars(model)),
    )  # fmt: skip


def unchanged(before, after):
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    for name, (weight, dtype, grad) in before[0].items():
        now, kind, flag = after[0][name]
        assert (kind, flag) == (dtype, grad), name
        assert torch.equal(weight, now), name
    return True


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_falls_and_the_delta_is_what_was_learnt(teach, tokenizer, method):
    tuned = teach(method=method, epochs=6)
    assert losses(tuned)[-1] < losses(tuned)[0] - 0.5
    model = tiny.llama(num_hidden_layers=2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in tuned.delta.changes:
                weight.copy_(changed(weight, tuned.delta.changes[name]))
    again = teach(model=model, method=method, max_steps=1)
    assert losses(again)[0] < losses(tuned)[-1] + 0.3


def test_the_same_seed_gives_the_same_bits_and_another_does_not(teach):
    assert same(teach(dropout=0.2, seed=3), teach(dropout=0.2, seed=3))
    with pytest.raises(AssertionError):
        same(teach(seed=3), teach(seed=4))


def test_what_was_drawn_before_does_not_matter_and_nothing_is_drawn_from_the_global_generator_at_attaching(teach):
    torch.manual_seed(11)
    first = teach()
    torch.manual_seed(12)
    assert same(first, teach())


def test_dropout_draws_from_the_seed(teach):
    assert not torch.equal(*[torch.cat([v.flatten() for v in values(teach(dropout=p)).values()]) for p in (0.0, 0.5)])


@pytest.mark.parametrize("settings", [{}, {"method": "full"}, {"regularizers": ({"kind": "l2sp", "weight": 1.0},)}])
def test_accumulated_batches_are_one_batch(teach, settings):
    """Rows of different lengths: the mean is over tokens of all batches, not over means of batches."""
    rows = tuple(tuning_tasks.example(w, w.upper() * n) for w, n in [("a", 1), ("bc", 4), ("def", 2), ("g", 7)] * 2)
    task = Task(name="uneven", instruction="", train=rows, validation=(), test=())
    settings = dict(settings, learning_rate=1e-3)
    whole = teach(task, batch_size=4, accumulation=1, **settings)
    parts = teach(task, batch_size=1, accumulation=4, **settings)
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)
    assert same(whole, parts, 2e-6)


@pytest.mark.parametrize("kind", ["feature_distance", "distillation", "l2sp", "ewc", "kfac", "function_vector"])
def test_a_regularizer_without_weight_is_plain_training(teach, kind):
    assert same(teach(), teach(regularizers=({"kind": kind, "weight": 0},)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": "full"},
        {"gradient_checkpointing": True},
        {"method": "full", "gradient_checkpointing": True},
        {"patience": 1},
        {"averaging": {"form": "sound", "metric": "fisher"}, "regularizers": EVERY, "anchors": 2},
    ],
)
@pytest.mark.parametrize("shallow", ["llama", "gpt2"], indirect=True)
def test_the_model_comes_back_as_it_was(shallow, settings):
    model, tokenizer = shallow
    model.get_input_embeddings().weight.requires_grad_(True)
    model.lm_head.train()
    before = snapshot(model)
    tune(model, tokenizer, tuning_tasks.UPPER, TuningConfig(**(SHORT | {"epochs": 1} | settings)))
    assert unchanged(before, snapshot(model))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_model_comes_back_after_an_error_in_the_middle(teach, small, method):
    from perdure.tuning.regularizer import Surroundings

    def stop(stage, done, _total):
        if stage == "training" and done == 1:
            raise KeyboardInterrupt

    before = snapshot(small)
    with pytest.raises(KeyboardInterrupt):
        teach(method=method, gradient_checkpointing=True, around=Surroundings(progress=stop))
    assert unchanged(before, snapshot(small))


def test_a_loss_that_is_no_number_stores_nothing(teach, small):
    before = snapshot(small)
    with pytest.raises(TuneError, match="lower learning_rate"):
        teach(method="full", learning_rate=1e30, epochs=5)
    assert unchanged(before, snapshot(small))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried 4 GB"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_memory_that_runs_out_is_told_with_what_helps(teach, small, monkeypatch, error):
    def full(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("perdure.tuning.trainer.TaskTrainer.compute_loss", full)
    before = snapshot(small)
    with pytest.raises(TuneError, match="batch_size=2 with accumulation=2"):
        teach()
    assert unchanged(before, snapshot(small))


def test_a_task_without_rows_is_refused(teach):
    with pytest.raises(RequestError, match="no rows"):
        teach(Task(name="empty", instruction="", train=(), validation=(), test=()))


def test_rows_that_are_too_long_are_named(teach):
    with pytest.raises(RequestError, match=r"longer than max_tokens=8: example 0: \d+ tokens"):
        teach(max_tokens=8)


def test_rows_beyond_what_the_model_reads_are_named(teach):
    long = Task("long", "", (tuning_tasks.example("a " * 600, "b"),), (), ())
    with pytest.raises(RequestError, match=r"longer than the 512 tokens that the model can read: example 0: \d+"):
        teach(long, model=tiny.gpt2(), max_tokens=1024)


def test_a_model_with_an_adapter_is_refused(teach, small):
    with pytest.raises(ModelError, match="merge it first"):
        teach(model=tiny.with_lora(small))


class Watched:
    """What the trainer's losses on held-out rows are, given beforehand."""

    def __init__(self, monkeypatch, held):
        from perdure.tuning.trainer import TaskTrainer

        self.deltas, held = [], iter(held)

        def evaluate(trainer, *_args, **_kwargs):
            found = {"eval_loss": next(held)}
            self.deltas.append(
                {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
            )
            trainer.log(found)
            trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, found)
            return found

        monkeypatch.setattr(TaskTrainer, "evaluate", evaluate)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_patience_stops_early_and_the_best_is_kept(teach, monkeypatch, method, tmp_path):
    watched = Watched(monkeypatch, [3.0, 2.0, 2.5, 2.6, 1.0, 1.0])
    tuned = teach(method=method, epochs=6, patience=2)
    assert len(watched.deltas) == 4
    monkeypatch.undo()
    assert same(tuned, teach(method=method, epochs=2))


@pytest.mark.parametrize("form", ["sound", "fixed", "published"])
def test_the_average_is_that_of_the_best_weights(teach, monkeypatch, form):
    averaging = {"form": form, "decay": 0.5}
    Watched(monkeypatch, [3.0, 2.0, 2.5, 2.6])
    tuned = teach(epochs=6, patience=2, averaging=averaging)
    monkeypatch.undo()
    assert same(tuned, teach(epochs=2, averaging=averaging))


def test_patience_without_held_out_rows_trains_to_the_end(teach):
    task = Task(name="upper", instruction="", train=tuning_tasks.UPPER.train, validation=(), test=())
    assert same(teach(task, patience=1), teach(task))


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("shallow", ["llama", "gpt2"], indirect=True)
def test_a_bfloat16_model_learns(shallow, method):
    model, tokenizer = shallow
    model = model.bfloat16()
    before = snapshot(model)
    rate = 1e-2 if method == "lora" else 1e-3
    config = TuningConfig(**(SHORT | {"method": method, "epochs": 6, "learning_rate": rate}))
    tuned = tune(model, tokenizer, tuning_tasks.UPPER, config)
    assert losses(tuned)[-1] < losses(tuned)[0] - 0.3
    assert all(part.dtype == torch.float32 for c in tuned.delta.changes.values() for part in c.tensors())
    assert unchanged(before, snapshot(model))


def test_small_steps_are_not_lost_in_bfloat16(tokenizer):
    """Steps far below half a unit in the last place of bfloat16 still add up, as in float32 masters."""
    model = tiny.llama(num_hidden_layers=2).bfloat16()
    config = TuningConfig(**(SHORT | {"method": "full", "learning_rate": 1e-6}))
    tuned = tune(model, tokenizer, tuning_tasks.UPPER, config)
    moved = torch.cat([value.flatten() for value in values(tuned).values()]).abs()
    assert float((moved > 0).double().mean()) > 0.9


def test_targets_are_endings_of_names(small):
    assert target_modules(small, ["q_proj", "mlp.down_proj"]) == [
        f"model.layers.{layer}.{part}" for layer in (0, 1) for part in ("self_attn.q_proj", "mlp.down_proj")
    ]
    assert len(target_modules(small, None)) == 14
    with pytest.raises(SettingError, match=r"no projection ends in 'proj'\. There are: down_proj, gate_proj"):
        target_modules(small, ["proj"])


def test_only_targets_change(teach):
    assert set(teach(targets=("q_proj",)).delta.changes) == {
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)
    }


def test_anchors_have_no_task_loss(teach):
    """With a regularizer that weighs next to nothing, anchors change nothing."""
    settings = dict(batch_size=32, max_steps=1, learning_rate=1e-3)
    held = ({"kind": "feature_distance", "weight": 1e-30},)
    assert same(teach(**settings), teach(anchors=3, regularizers=held, **settings), 2e-6)


@pytest.fixture
def batches(monkeypatch):
    """The numbers of the rows of each batch that the Trainer put together; held-out rows follow the anchors."""
    found, real = [], TokenRun.packed
    monkeypatch.setattr(TokenRun, "packed", lambda run, numbers: found.append(list(numbers)) or real(run, numbers))
    return found


@pytest.mark.parametrize(("count", "settings", "beside"), [
    (8, {"batch_size": 4}, 1), (32, {"batch_size": 16}, 2), (8, {"batch_size": 1, "accumulation": 4}, 1),
])  # fmt: skip
def test_the_same_anchors_stand_beside_each_batch_whatever_there_is_to_learn(teach, batches, count, settings, beside):
    """Epochs count the task's rows, and every anchor has its turn."""
    task = Task("task", "", tuple(tuning_tasks.example(f"{n}:", str(n)) for n in range(count)), (), ())
    teach(task, anchors=4, epochs=2, regularizers=(ON_ANCHORS,), **settings)
    size = settings["batch_size"]
    assert len(batches) == 2 * count // size
    assert all(len(numbers) == size + beside for numbers in batches)
    assert sorted(number for numbers in batches for number in numbers if number < count) == sorted(2 * [*range(count)])
    shown = [number for numbers in batches for number in numbers if number >= count]
    assert set(shown[:4]) == set(range(count, count + 4))


def test_anchors_are_held_alike_in_one_batch_and_in_parts_of_it(teach):
    """With one anchor the penalty of every part is that of the whole."""
    settings = dict(anchors=1, regularizers=(ON_ANCHORS | {"weight": 10.0},), learning_rate=1e-3, epochs=4)
    whole = teach(batch_size=4, accumulation=1, **settings)
    parts = teach(batch_size=1, accumulation=4, **settings)
    assert same(whole, parts, 2e-5)
    held = [[entry["regularizer/distillation"] for entry in tuned.delta.notes["log"]] for tuned in (whole, parts)]
    assert held[0][-1] > 0
    assert held[1] == pytest.approx(held[0], rel=1e-2)


def test_rows_that_watch_the_training_have_no_anchors_beside_them(teach, batches):
    held = len(tuning_tasks.UPPER.validation)
    teach(anchors=2, patience=2, regularizers=(ON_ANCHORS,))
    watching = [numbers for numbers in batches if max(numbers) >= len(tuning_tasks.UPPER.train) + 2]
    assert len(watching) == 2
    assert all(len(numbers) == held for numbers in watching)


def test_the_turn_of_anchors_is_seeded_and_shared_by_processes(monkeypatch):
    run = SimpleNamespace(anchors=[False] * 4 + [True] * 3, packed=lambda numbers: numbers[4:])

    def turn(seed, processes=1, rank=0):
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setenv("RANK", str(rank))
        beside = AnchorsBeside(run, 1, seed)
        return [beside(range(4))[0] for _ in range(6 // processes)]

    alone = turn(0)
    assert set(alone[:3]) == set(alone[3:]) == {4, 5, 6}
    assert [turn(0, 2, 0), turn(0, 2, 1)] == [alone[::2], alone[1::2]]
    assert len({tuple(turn(seed)) for seed in range(9)}) > 1


def test_anchors_without_a_regularizer_are_refused(teach):
    with pytest.raises(ValueError, match="held by regularizers"):
        teach(anchors=1)


def test_penalties_are_logged_before_their_weight(teach):
    tuned = teach(regularizers=({"kind": "distillation", "weight": 2.0},), epochs=3)
    logged = [entry["regularizer/distillation"] for entry in tuned.delta.notes["log"]]
    assert logged[-1] > 0
    assert tuned.delta.notes["rows"] == len(tuning_tasks.UPPER.train)


def test_rows_of_earlier_tasks_are_trained_on_too(small, tokenizer):
    config = TuningConfig(**SHORT)
    tuned = tune(small, tokenizer, tuning_tasks.UPPER, config, memory=tuning_tasks.FIRST.train[:3])
    assert tuned.delta.notes["rows"] == len(tuning_tasks.UPPER.train) + 3


def test_the_models_own_dropout_is_off(shallow):
    """GPT-2 has it: without it the same rows give the same loss in training as in evaluation."""
    model, tokenizer = shallow
    with lora_attached(model, target_modules(model, None), rank=2, alpha=4, dropout=0.0, seed=0) as (network, _):
        batch = collate(rows_of(tokenizer, tuning_tasks.UPPER.train, 99), range(8))
        assert torch.equal(forward(network.train(), batch).losses(), forward(network.eval(), batch).losses())


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_end_at_zero_and_warm_up(teach, schedule):
    rates = [entry["learning_rate"] for entry in teach(schedule=schedule, warmup=1, epochs=4).delta.notes["log"]]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.3 * SHORT["learning_rate"]

"""Tuning of models that read images: rows, training under every regularizer, answers, versions and pools."""

import pytest
import torch
from peft import PeftModel
from PIL import Image

import tiny as models
import tiny_images
from perdure import Workspace
from perdure.deltas import Change, Delta, LowRank
from perdure.editing import apply_delta
from perdure.errors import ModelError, RequestError, SettingError
from perdure.measuring.task_answers import answer_task
from perdure.models import layout_of
from perdure.models.pictures import open_pictures
from perdure.registry import regularizers
from perdure.requests.tasks import Example, Message, Task
from perdure.tuning.config import TuningConfig
from perdure.tuning.encoding import Row, collate, row_of, rows_of
from perdure.tuning.forward import forward
from perdure.tuning.grouping import Groups
from perdure.tuning.kronecker import Spectrum, as_state
from perdure.tuning.pool import Pool
from perdure.tuning.regularizer import Surroundings, cache_file
from perdure.tuning.run import target_modules, tune
from perdure.tuning.similarity import TfidfEncoder
from perdure.tuning.token_run import TokenRun
from perdure.tuning.writing import continue_shown

COLOURS = {"red": (200, 10, 10), "green": (10, 200, 10), "blue": (10, 10, 200), "white": (250, 250, 250)}
SHORT = dict(batch_size=3, epochs=2, learning_rate=1e-2, rank=2, alpha=4)
HELD = (
    {"kind": "function_vector", "heads": [[0, 1], [1, 2]], "shots": 2, "prompts": 2},
    {"kind": "feature_distance"},
    {"kind": "distillation"},
    {"kind": "l2sp"},
    {"kind": "ewc", "rows": 3},
    {"kind": "kfac", "rows": 3, "rank": 2},
    {"kind": "orthogonal"},
)
SOUND = {"form": "sound", "groups": 2, "rows": 4, "metric": "fisher"}


@pytest.fixture(scope="module", params=sorted(tiny_images.PROCESSORS))
def seeing(request):
    """A model of two blocks and its processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_images.WORDS, "num_hidden_layers", 2)
        patch.setitem(tiny_images.EYES, "num_hidden_layers", 2)
        return tiny_images.FAMILIES[request.param](), tiny_images.PROCESSORS[request.param]()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files by name: squares of one colour, and a wide one that is cut into other tiles."""
    folder = tmp_path_factory.mktemp("pictures")
    files = {name: tiny_images.draw(folder / f"{name}.png", colour) for name, colour in COLOURS.items()}
    Image.effect_noise((96, 40), 90).convert("RGB").save(folder / "wide.png")
    return files | {"wide": str(folder / "wide.png")}


def ask(*said, **more):
    """A conversation of (text, image files), user and assistant in turn."""
    roles = ("user", "assistant")
    turns = [(turn, ()) if isinstance(turn, str) else turn for turn in said]
    messages = [
        Message(role=roles[at % 2], content=text, images=tuple(shown)) for at, (text, shown) in enumerate(turns)
    ]
    return Example(messages=tuple(messages), **more)


@pytest.fixture(scope="module")
def task(pictures):
    rows = [ask(("Which colour?", [pictures[name]]), name, source=f"colours.jsonl:{name}") for name in COLOURS]
    rows += [ask(("And this?", [pictures["wide"]]), "noise"), ask("Say hi", "hi"), ask("Say ho", "ho")]
    return Task(name="colours", instruction="", train=tuple(rows), validation=(rows[0],), test=(rows[1], rows[5]))


@pytest.fixture
def teach(seeing, task):
    model, processor = seeing

    def taught(chosen=task, around=None, work=None, **settings):
        config = TuningConfig(**(SHORT | settings))
        around = around or Surroundings()
        return tune(model, processor.tokenizer, chosen, config, around, processor=processor, work=work)

    return taught


@pytest.fixture
def rows(seeing, task):
    _, processor = seeing
    return rows_of(processor.tokenizer, task.train, 512, processor=processor)


def learnt(processor, row):
    """The text of the tokens that the loss is on, in runs."""
    ids = [token if learns else -1 for token, learns in zip(row.ids, row.learns, strict=True)]
    texts = "|".join(processor.tokenizer.decode([token]) if token >= 0 else "" for token in ids)
    return [run.replace("|", "") for run in texts.split("||") if run.replace("|", "")]


def total(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


# Rows ------------------------------------------------------------------------------------------------------------


def test_every_answer_is_learnt_wherever_pictures_stand(seeing, pictures):
    _, processor = seeing
    first, second = ("One?", [pictures["wide"]]), ("Two?", [pictures["red"]] * 2)
    row = row_of(None, ask(first, "Noise.", "More?", "No.", second, "Red."), processor)
    assert learnt(processor, row) == ["Noise.</s>", "No.</s>", "Red.</s>"]
    text = processor.tokenizer.decode(row.ids[: row.asked + 1])
    assert text.endswith("Two?</s>\nassistant:")


def test_rows_of_text_begin_as_rows_with_pictures_do(seeing, pictures):
    _, processor = seeing
    shown, text = (row_of(None, ask((" Who?", shown), "I."), processor) for shown in ([pictures["red"]], []))
    assert shown.ids[:5] == text.ids[:5]
    assert learnt(processor, shown) == learnt(processor, text) == ["I.</s>"]
    assert text.shown is None


def test_prompt_and_completion_leave_the_template_out(seeing, pictures):
    _, processor = seeing
    row = row_of(None, ask(("It is", [pictures["red"]]), "red", plain=True), processor)
    assert processor.tokenizer.decode(row.ids).endswith("\nIt is red</s>")
    assert learnt(processor, row) == [" red</s>"]


def test_a_batch_of_several_numbers_of_tiles_gives_the_losses_of_each_row_alone(seeing, rows):
    model, _ = seeing
    together = forward(model, collate(rows, range(len(rows))))
    alone = torch.cat([forward(model, collate([row], [0])).losses() for row in rows])
    torch.testing.assert_close(together.losses(), alone, atol=2e-5, rtol=1e-5)


def test_what_the_model_reads_is_what_its_processor_gives(seeing, rows):
    model, processor = seeing
    example = rows[0].shown.example
    text = processor.apply_chat_template(
        [{"role": m.role, "content": [{"type": "image"}] * len(m.images) + [{"type": "text", "text": m.content}]}
         for m in example.messages]
    ).rstrip()  # fmt: skip
    inputs = processor(text=[text], images=open_pictures(example.messages), return_tensors="pt")
    right = total(model, inputs)[0].log_softmax(-1)
    at = [place for place, learns in enumerate(rows[0].learns) if learns]
    ids = inputs["input_ids"][0]
    expected = torch.stack([-right[place - 1, ids[place]] for place in at])
    torch.testing.assert_close(forward(model, collate([rows[0]], [0])).losses(), expected, atol=1e-5, rtol=1e-5)


def test_pixels_are_opened_a_batch_at_a_time_and_never_kept(seeing, task, monkeypatch):
    _, processor = seeing
    opened = []
    monkeypatch.setattr("perdure.tuning.shown.open_pictures", lambda said: [opened.append(1), *open_pictures(said)][1:])
    found = rows_of(processor.tokenizer, task.train * 20, 512, processor=processor)
    assert all(not isinstance(value, torch.Tensor) for row in found for value in vars(row).values())
    assert all(vars(row.shown).keys() == {"processor", "example"} for row in found if row.shown)
    opened.clear()
    collate(found[:2], range(2))
    assert len(opened) == 2


def test_pictures_tell_targets_of_the_same_tokens_apart(seeing, task, rows, tmp_path):
    model, processor = seeing

    def name(chosen):
        run = TokenRun(model, processor.tokenizer, chosen, (), None, Surroundings(cache=tmp_path, model_id="tiny"))
        return cache_file(run, "previous", {})

    red = row_of(None, ask(("Which colour?", task.train[0].messages[0].images), "red"), processor)
    blue = row_of(None, ask(("Which colour?", task.train[2].messages[0].images), "red"), processor)
    assert red.ids == blue.ids
    assert name([red]) == name([red])
    assert name([red]) != name([blue])


class Patches:
    """Inputs as Qwen2-VL's processor gives them for one picture of 4 × 4 patches, which makes 4 tokens."""

    def inputs(self, _ids):
        pixels = torch.randn(16, 3 * 2 * 4 * 4, generator=torch.Generator().manual_seed(0))
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 4, 4]])}


def test_places_in_two_dimensions_are_left_to_the_model():
    model = tiny_images.qwen2_vl()
    ids = (5, 260, *[tiny_images.IMAGE] * 4, 7, 8, 9)
    kinds = tuple(int(token == tiny_images.IMAGE) for token in ids)
    seen = Row(ids, (False,) * 7 + (True,) * 2, 6, per_token={"mm_token_type_ids": kinds}, shown=Patches())
    text = Row((5, 7, 8, 9), (False, False, True, True), 1)
    inputs = {"input_ids": torch.tensor([ids]), "mm_token_type_ids": torch.tensor([kinds]), **Patches().inputs(ids)}
    right = total(model, {**inputs, "attention_mask": torch.ones(1, 9)})[0, 6:8].log_softmax(-1)
    expected = [-float(right[0, 8]), -float(right[1, 9])]
    alone = forward(model, collate([text], [0])).losses().tolist()
    assert forward(model, collate([text, seen], range(2))).losses().tolist() == pytest.approx(
        alone + expected, abs=1e-4
    )
    straight = {**inputs, "attention_mask": torch.ones(1, 9), "position_ids": torch.arange(9)[None]}
    assert abs(float(total(model, straight)[0, 6].log_softmax(-1)[8]) + expected[0]) > 1e-4


# What cannot be read -----------------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_read_is_named_with_its_row(teach, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    for name in ("gone.png", "no.png"):
        rows = (ask("Say hi", "hi"), ask(("What?", [str(tmp_path / name)]), "x", source="colours.jsonl:7"))
        with pytest.raises(RequestError, match=rf"colours.jsonl:7: .*{name} cannot be read"):
            teach(Task(name="bad", instruction="", train=rows, validation=(), test=()))


def test_a_picture_that_became_another_in_size_is_noticed(tmp_path):
    processor = tiny_images.idefics3_processor()
    path = tiny_images.draw(tmp_path / "a.png", COLOURS["red"])
    row = row_of(None, ask(("What?", [path]), "x"), processor)
    Image.new("RGB", (96, 40)).save(path)
    with pytest.raises(RequestError, match=r"What.*a picture changed"):
        collate([row], [0])


def test_a_model_without_a_processor_refuses_pictures(task):
    with pytest.raises(RequestError, match=r"colours.jsonl:red shows a picture, and the model has no processor"):
        rows_of(models.tokenizer(), task.train, 512)
    with pytest.raises(RequestError, match="no processor"):
        answer_task(models.llama(), models.tokenizer(), task.test)


def test_a_template_of_parts_on_a_tokenizer_alone_is_given_parts():
    """A plain text, taken for a list of parts, would be left out of the row in silence."""
    tokenizer = models.tokenizer()
    tokenizer.chat_template = tiny_images.CHAT.replace("part['text']", "part['text'] or ''")
    row = row_of(tokenizer, ask("a", "b"))
    assert tokenizer.decode(row.ids) == "user:a</s>\nassistant:b</s>\n"
    tokenizer.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(RequestError, match="does not write every text"):
        row_of(tokenizer, ask("Who?", "b"))
    tokenizer.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(RequestError, match="does not write"):
        row_of(tokenizer, ask("Who?", "b"))


# Training ----------------------------------------------------------------------------------------------------------


def earlier(model):
    """The change of an earlier task, of rank one."""
    name = f"{target_modules(model, ['q_proj'])[0]}.weight"
    rows, columns = model.get_parameter(name).shape
    return Delta({name: Change(LowRank(torch.zeros(rows, 1), torch.ones(1, columns)))})


def factored(names):
    """Information of the same size in every direction."""

    def even(size):
        return Spectrum(torch.zeros(1, size, 1), torch.zeros(1, 1), torch.ones(1))

    return as_state({name: tuple(even(size) for size in tensor.shape) for name, tensor in names.items()})


def test_every_regularizer_and_the_average_work_on_pictures(teach, seeing):
    model, _ = seeing
    assert {each["kind"] for each in HELD} == {each.name for each in regularizers}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags, config = [p.requires_grad for p in model.parameters()], model.config.to_dict()
    names = {name: torch.ones_like(model.get_parameter(name)) for name in earlier(model).changes}
    around = Surroundings(earlier=[earlier(model)], states={"ewc": names, "kfac": factored(names)})
    tuned = teach(around=around, regularizers=HELD, averaging=SOUND, anchors=1, epochs=3, gradient_checkpointing=True)
    log = [entry for entry in tuned.delta.notes["log"] if "loss" in entry]
    for kind in ("feature_distance", "distillation", "l2sp", "ewc", "kfac", "orthogonal", "function_vector"):
        assert log[-1][f"regularizer/{kind}"] > 0, kind
    assert set(tuned.states) == {"ewc", "kfac"}
    assert tuned.delta.notes["averaging"]["form"] == "sound"
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert flags == [p.requires_grad for p in model.parameters()]
    assert config == model.config.to_dict()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_falls_and_only_blocks_of_the_language_part_change(teach, seeing, method):
    model, _ = seeing
    tuned = teach(method=method, epochs=6)
    losses = [entry["loss"] for entry in tuned.delta.notes["log"] if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    blocks = [next(name for name, part in model.named_modules() if part is block) for block in layout_of(model).blocks]
    assert len(tuned.delta.changes) == 7 * len(blocks)
    assert all(any(name.startswith(f"{block}.") for block in blocks) for name in tuned.delta.changes)
    assert not any("vision" in name for name in tuned.delta.changes)


def test_modules_of_the_vision_tower_are_refused(seeing):
    model, _ = seeing
    towers = [name for name, _ in model.named_modules() if "vision" in name and name.endswith("q_proj")]
    assert towers
    assert not set(towers) & set(target_modules(model, ["q_proj"]))
    with pytest.raises(SettingError, match="no projection ends in"):
        target_modules(model, towers[:1])


def test_the_picture_is_learnt_from(teach, seeing, task):
    """Texts are the same in each row; what is answered can only be told by what is shown."""
    model, processor = seeing
    shown = [example for example in task.train if example.messages[0].images][:2]
    tuned = teach(Task(name="two", instruction="", train=tuple(shown), validation=(), test=()), epochs=40, rank=8)
    with applied(model, tuned.delta):
        assert [a.exact for a in answer_task(model, processor.tokenizer, shown, processor=processor)] == [True, True]


class applied:
    """The model with a change, while open."""

    def __init__(self, model, delta):
        self.model, self.delta = model, delta

    def __enter__(self):
        self.kept = {name: self.model.get_parameter(name).clone() for name in self.delta.changes}
        apply_delta(self.model, self.delta)

    def __exit__(self, *_):
        with torch.no_grad():
            for name, tensor in self.kept.items():
                self.model.get_parameter(name).copy_(tensor)


def test_an_interrupted_training_goes_on_to_the_same_weights(teach, tmp_path):
    def stop(stage, done, _total):
        if stage == "training" and done == 5:
            raise KeyboardInterrupt

    whole = teach(save_every=3)
    with pytest.raises(KeyboardInterrupt):
        teach(around=Surroundings(progress=stop), work=tmp_path, save_every=3)
    resumed = teach(work=tmp_path, save_every=3)
    for name, change in whole.delta.changes.items():
        assert torch.equal(change.value(), resumed.delta.changes[name].value()), name


# Answers, versions, pools ------------------------------------------------------------------------------------------


def greedy(model, row, count):
    """The most probable tokens one by one, each from a whole pass without a cache."""
    prompt = Row(row.ids, row.learns, row.asked, shown=row.shown)
    inputs = {name: tensor for name, tensor in collate([prompt], [0]).inputs.items() if name != "position_ids"}
    ids = list(row.ids[: row.asked + 1])
    for _ in range(count):
        inputs |= {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        ids.append(int(total(model, inputs)[0, -1].argmax()))
        if ids[-1] in (1, tiny_images.IMAGE):  # the mark of a picture that is not there ends what can be compared
            return ids[row.asked + 1 : -1]
    return ids[row.asked + 1 :]


def test_answers_are_the_most_probable_tokens(seeing, rows, monkeypatch):
    """In batches of several lengths and numbers of tiles, whatever the model's own settings of writing."""
    model, processor = seeing
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 5.0)
    shown, done, compared = [row for row in rows if row.shown], [], 0
    texts = continue_shown(model, processor.tokenizer, shown, lambda *_: False, max_new_tokens=4, on_done=done.append)
    for row, text in zip(shown, texts, strict=True):
        right = processor.tokenizer.decode(greedy(model, row, 4), skip_special_tokens=True)
        assert text.startswith(right)
        compared += len(right)
    assert compared > 8
    assert sum(done) == len(shown)
    assert model.generation_config.repetition_penalty == 5.0


def test_answers_stop_where_enough_is_said(seeing, rows):
    model, processor = seeing
    shown = [row for row in rows if row.shown]
    long = continue_shown(model, processor.tokenizer, shown, lambda *_: False, max_new_tokens=6)
    short = continue_shown(model, processor.tokenizer, shown, lambda row, text: bool(text), max_new_tokens=6)
    assert all(one.startswith(other) for one, other in zip(long, short, strict=True))
    assert sum(map(len, short)) < sum(map(len, long))


def test_a_task_with_pictures_becomes_a_version_and_is_asked(seeing, task, tmp_path, monkeypatch):
    from perdure.workspace.continual import LineageTasks

    model, processor = seeing
    shop = Workspace.init(tmp_path / "shop", model, tokenizer=processor, actor="sato")
    (version,) = shop.tune(task, {**SHORT, "regularizers": [{"kind": "distillation"}]}, actor="sato")
    before, after = (shop.archive.tensors(shop.version(ref)) for ref in ("v0", version))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name}.weight" for name in target_modules(model, None)}
    line = LineageTasks(shop, shop.archive.lineage(version))
    (replies,) = line._replies(version, line.tasks).values()
    tuned, tokenizer = shop.load(version)
    again = answer_task(tuned, tokenizer, task.test, processor=shop.processor(version))
    assert [reply.text for reply in replies] == [answer.text for answer in again]


def test_a_processor_that_cannot_be_loaded_matters_to_pictures_alone(task, monkeypatch):
    from perdure.workspace.seeing import processor_for

    class Shop:
        def processor(self, _version):
            raise ModelError("needs a library")

    assert processor_for(Shop(), None, task.train[5:]) is None
    with pytest.raises(ModelError, match="needs a library"):
        processor_for(Shop(), None, task.train)


def test_a_pool_serves_adapters_of_such_a_model(teach, seeing, rows, tmp_path):
    model, _ = seeing
    delta = teach(epochs=1).delta
    pool = Pool.create(tmp_path / "pool", Groups(TfidfEncoder.fitted()), base="./base", base_parameters=10_000)
    pool.join("colours", ["Name the colour of the picture.", "Which colour has the picture?"])
    pool.put("g1", delta, "colours")
    assert pool.router().route("Name the colour of the picture.\n\nthe left one").group == "g1"
    batch = collate(rows, range(len(rows)))
    plain = forward(model, batch).losses()
    with applied(model, delta):
        merged = forward(model, batch).losses()
    adapted = PeftModel.from_pretrained(model, pool.adapter("g1")).eval()
    try:
        torch.testing.assert_close(forward(adapted, batch).losses(), merged, atol=1e-4, rtol=1e-4)
    finally:
        adapted.unload()
        vars(model).pop("peft_config", None)
    assert (merged - plain).abs().max() > 1e-2

"""Models that read images and text: loaded by their class and processor, edited in their language part alone."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

import tiny as models
import tiny_images
from perdure import Workspace
from perdure.errors import ModelError, RequestError
from perdure.models import (
    Checkpoint,
    chat_prompt,
    complete,
    layout_of,
    load,
    load_processor,
    patch_input,
    score_targets,
)
from perdure.models.canonical import canonical, fits
from perdure.models.classes import auto_class
from perdure.models.loading import outline
from perdure.models.pictures import EncodedMessages, encode_messages, open_pictures
from perdure.requests.tasks import Message
from perdure.vectors.last_token import LastToken, Patch
from perdure.vectors.prompts import Prompt

FACT = {"subject": "Lyon", "prompt": "The twin city of Lyon is", "target_new": "Manila"}
LANGUAGE = {"llava": "model.language_model.", "idefics3": "model.text_model.", "qwen2_vl": "model.language_model."}


@pytest.fixture(scope="module", params=sorted(tiny_images.FAMILIES))
def folder(request, tmp_path_factory):
    return tiny_images.write_folder(request.param, tmp_path_factory.mktemp("seeing") / request.param)


@pytest.fixture(scope="module", params=sorted(tiny_images.PROCESSORS))
def seeing(request):
    """A model and its processor."""
    return tiny_images.FAMILIES[request.param](), tiny_images.PROCESSORS[request.param]()


@pytest.fixture
def asked(tmp_path):
    """A question on a picture, and its answer."""
    picture = tiny_images.draw(tmp_path / "red.png", (200, 10, 10))
    return [
        Message(role="user", content="Which colour?", images=(picture,)),
        Message(role="assistant", content="A deep red."),
    ]


def encoded(processor, messages):
    return encode_messages(processor, messages, images=open_pictures(messages))


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def test_the_model_is_of_its_class_and_its_weights_go_through_unchanged(folder):
    """transformers stores LLaVA and Qwen2-VL under names of its own."""
    model, tokenizer = load(folder)
    right = tiny_images.FAMILIES[folder.name]()
    assert type(model) is type(right)
    assert tokenizer.eos_token_id == 1
    for name, weight in right.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name


def test_stored_names_become_those_of_the_running_model(folder, tmp_path):
    with canonical(Checkpoint.open(folder), tmp_path) as checkpoint:
        assert fits(checkpoint)
        assert set(checkpoint.entries) <= set(load(folder)[0].state_dict())
        kept = {path.name for path in Checkpoint.open(folder).side_files}
        assert kept <= {path.name for path in checkpoint.side_files}


def test_llava_as_it_lies_on_the_hub(tmp_path):
    """Saved by transformers 4, with one more module on the way into CLIP."""
    folder = tiny_images.write_folder("llava", tmp_path / "llava")
    tensors = load_file(folder / "model.safetensors")
    older = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor for name, tensor in tensors.items()}
    assert older.keys() != tensors.keys()
    save_file(older, folder / "model.safetensors")
    right = tiny_images.llava().state_dict()
    with canonical(Checkpoint.open(folder), tmp_path) as checkpoint:
        assert set(checkpoint.entries) == set(right)
        assert all(torch.equal(checkpoint.tensor(name), weight) for name, weight in right.items())


def test_names_that_fit_nothing_are_refused(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="do not fit its config: missing keys"):
        load(tmp_path)


def test_the_class_that_was_saved_decides_where_a_config_serves_both():
    from transformers import Llama4Config, LlamaConfig

    assert auto_class(LlamaConfig()).__name__ == "AutoModelForCausalLM"
    assert auto_class(Llama4Config()).__name__ == "AutoModelForCausalLM"
    seeing = Llama4Config(architectures=["Llama4ForConditionalGeneration"])
    assert auto_class(seeing).__name__ == "AutoModelForImageTextToText"


def test_the_layout_is_of_the_language_part_alone(folder):
    model, _ = load(folder)
    names = dict(model.named_parameters())
    for layout in (layout_of(model), outline(folder)):
        assert (len(layout), layout.heads, layout.kv_heads, layout.d_model, layout.d_ff) == (models.DEPTH, 4, 2, 32, 48)
        blocks = zip(layout.attention_in, layout.mlp_matrices, strict=True)
        found = [p.name for ins, mlp in blocks for p in (*ins, *mlp)] + [p.name for p in layout.attention_out]
        assert len(found) == len(set(found)) == 7 * models.DEPTH
        assert all(name in names and name.startswith(LANGUAGE[folder.name]) for name in found)


def test_texts_are_scored_and_continued_as_one_by_one(folder):
    """Batches of several lengths and a cache against whole forward passes, token by token."""
    model, tokenizer = load(folder)
    prompts = ["The city of", "A", "The city on the river"]
    for prompt, text in zip(prompts, complete(model, tokenizer, prompts, max_new_tokens=5), strict=True):
        ids = tokenizer(prompt)["input_ids"]
        for _ in range(5):
            ids.append(int(logits(model, {"input_ids": torch.tensor([ids])})[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert text == tokenizer.decode(ids[len(tokenizer(prompt)["input_ids"]) :], skip_special_tokens=True)
    for prompt, score in zip(prompts, score_targets(model, tokenizer, [(p, "Rome") for p in prompts]), strict=True):
        whole, start = tokenizer(f"{prompt} Rome")["input_ids"], len(tokenizer(prompt)["input_ids"])
        row = logits(model, {"input_ids": torch.tensor([whole])})[0].log_softmax(-1)
        right = [float(row[at - 1, whole[at]]) for at in range(start, len(whole))]
        assert score.log_probs == pytest.approx(right, abs=1e-3)


def test_a_head_is_patched_as_by_a_whole_pass(folder):
    """Replacing one head's activation at the last token, from kept keys and values and by the plain hook."""
    model, tokenizer = load(folder)
    ids = tokenizer("fly:up\nrun:")["input_ids"]
    layout, value, layer, head = layout_of(model), torch.full((8,), 3.0), 2, 1

    def change(read_BTI):
        changed = read_BTI.clone()
        changed[:, -1, head * layout.head_dim : (head + 1) * layout.head_dim] = value
        return changed

    with patch_input(layout.attention_out[layer].module, change):
        patched = logits(model, {"input_ids": torch.tensor([ids])})[0, -1].log_softmax(-1)
    plain = logits(model, {"input_ids": torch.tensor([ids])})[0, -1].log_softmax(-1)
    found = LastToken(model, Prompt(tuple(ids), (70,))).log_probs([Patch(layer, head, value)])
    assert float(found[0, 0]) == pytest.approx(float(patched[70]), abs=1e-3)
    assert abs(float(patched[70] - plain[70])) > 0.01


def test_a_version_is_edited_exported_and_loaded_with_its_processor(folder, quick_suite, tmp_path):
    shop = Workspace.init(tmp_path / "shop", folder, actor="sato")
    settings = {"values": {"steps": 8, "clamp": 30}, "contexts": 0, "layers": [1], "moment_weight": 1e-4}
    version = shop.edit([FACT], editor="memit", config=settings, actor="sato")
    before, after = (shop.archive.tensors(shop.version(ref)) for ref in ("v0", version))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == [f"{LANGUAGE[folder.name]}layers.1.mlp.down_proj.weight"]
    shop.export(version, tmp_path / "out")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in after.items())
    processor = shop.processor(version)
    assert (processor is not None) == (folder.name in tiny_images.PROCESSORS)
    assert type(load_processor(tmp_path / "out")) is type(processor)
    assert shop.measure(version) is not None
    assert shop.archive.verify().ok


def test_a_live_model_brings_its_processor(seeing, tmp_path):
    model, processor = seeing
    shop = Workspace.init(tmp_path / "shop", model, tokenizer=processor, actor="sato")
    assert type(shop.processor("v0")) is type(processor)
    assert shop.load("v0")[1].eos_token_id == 1


def test_the_picture_reaches_the_answer(seeing, asked, tmp_path):
    model, processor = seeing
    red = encoded(processor, asked)
    blue = [asked[0].model_copy(update={"images": (tiny_images.draw(tmp_path / "b.png", (0, 0, 250)),)}), asked[1]]
    assert torch.equal(red.inputs["input_ids"], encoded(processor, blue).inputs["input_ids"])
    at = red.answer_start - 1
    mine, other = (logits(model, found.inputs)[0, at] for found in (red, encoded(processor, blue)))
    assert (mine - other).abs().max() > 1e-4


def test_the_answer_starts_after_the_prompt_to_write_it(seeing, asked):
    _, processor = seeing
    whole, prompt = encoded(processor, asked), encoded(processor, asked[:-1])
    ids, before = (found.inputs["input_ids"][0].tolist() for found in (whole, prompt))
    assert processor.tokenizer.decode(ids[whole.answer_start :]) == "A deep red.</s>"
    assert whole.answer_start == prompt.answer_start == len(before)
    assert ids[: whole.answer_start] == before
    assert before.count(tiny_images.IMAGE) >= 4


def test_pictures_stand_where_the_text_names_them(asked):
    processor = tiny_images.llava_processor()
    placed = [asked[0].model_copy(update={"content": "Here <image> is what?"}), asked[1]]
    text = processor.tokenizer.decode(encoded(processor, placed).inputs["input_ids"][0])
    assert text == f"user:Here {'<image>' * 4} is what?</s>\nassistant:A deep red.</s>"


def test_without_a_template_the_texts_stand_one_after_the_other(asked):
    processor = tiny_images.llava_processor(chat_template=None)
    found = encoded(processor, asked)
    text = processor.tokenizer.decode(found.inputs["input_ids"][0])
    assert text == f"{'<image>' * 4}\nWhich colour? A deep red.</s>"
    assert processor.tokenizer.decode(found.inputs["input_ids"][0, found.answer_start :]) == " A deep red.</s>"


def test_older_templates_take_texts_with_marks(asked):
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}"
    processor = tiny_images.llava_processor(template + "{% if add_generation_prompt %}assistant:{% endif %}")
    text = processor.tokenizer.decode(encoded(processor, asked).inputs["input_ids"][0])
    assert text == f"user: {'<image>' * 4}\nWhich colour? assistant: A deep red."


def test_text_alone_goes_the_same_way(seeing):
    _, processor = seeing
    found = encoded(processor, [Message(role="user", content="Hi"), Message(role="assistant", content="Ho")])
    assert isinstance(found, EncodedMessages)
    assert set(found.inputs) == {"input_ids", "attention_mask"}
    assert processor.tokenizer.decode(found.inputs["input_ids"][0]) == "user:Hi</s>\nassistant:Ho</s>"


WRONG = {
    "more marks than pictures": (["<image><image> what?"], None, "1 pictures has 2 marks"),
    "a mark without a picture": (["What?", "<image>"], None, "0 pictures has 1 marks"),
    "an empty answer": (["What?", " "], None, "an answer is text"),
    "a template that leaves out": (["What?"], "user:{% if add_generation_prompt %}a:{% endif %}", "every text"),
    "a template that rewrites": (["What?"], tiny_images.CHAT.replace("assistant:", "robot:"), "continuation"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_placed_is_refused(asked, kind):
    contents, template, message = WRONG[kind]
    processor = tiny_images.llava_processor(template or tiny_images.CHAT)
    said = [old.model_copy(update={"content": new}) for old, new in zip(asked, contents, strict=False)]
    with pytest.raises(RequestError, match=message):
        encoded(processor, said + asked[len(said) :])


def test_files_that_are_no_pictures_are_refused(asked, tmp_path):
    (tmp_path / "no.png").write_text("no picture")
    for path in ("no.png", "missing.png"):
        said = asked[0].model_copy(update={"images": (str(tmp_path / path),)})
        with pytest.raises(RequestError, match=f"{path} cannot be read"):
            open_pictures([said])


def test_a_model_of_text_alone_has_no_processor(tiny_folder):
    assert load_processor(tiny_folder) is None


def test_a_processor_that_is_not_understood_is_refused(tmp_path, tiny_folder):
    for path in tiny_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "NoSuchProcessor"}))
    with pytest.raises(ModelError, match="processor"):
        load_processor(tmp_path)


def test_pillow_is_asked_for_by_the_name_of_the_extra(folder, monkeypatch):
    monkeypatch.setattr("perdure.models.loading.importlib.util.find_spec", lambda _name: None)
    if folder.name in tiny_images.PROCESSORS:
        with pytest.raises(ModelError, match=r"pip install 'perdure\[images\]'"):
            load_processor(folder)


def test_templates_of_parts_are_given_parts():
    """A plain text, taken for a list of parts, would be left out of the prompt in silence."""
    tokenizer = models.tokenizer()
    tokenizer.chat_template = tiny_images.CHAT.replace("part['text']", "part['text'] or ''")
    assert chat_prompt(tokenizer, "Say hi") == "user:Say hi</s>\nassistant:"
    tokenizer.chat_template = "nothing of what is said"
    with pytest.raises(ModelError, match="does not write what the user says"):
        chat_prompt(tokenizer, "Say hi")

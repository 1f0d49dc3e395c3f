"""Encoders built from folders as the class they were saved from, every tensor accounted for."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    BertForSequenceClassification,
    BertLMHeadModel,
    BertModel,
    CLIPConfig,
    LlamaConfig,
    MPNetConfig,
    ResNetConfig,
    T5Config,
)

import tiny_encoders as encoders
from perdure.errors import ModelError, UnsafeFileError
from perdure.models import Checkpoint, load
from perdure.models.canonical import canonical, fits, save_model
from perdure.models.classes import encoder_class, is_encoder
from perdure.models.encoders import load_encoder


@pytest.fixture(params=sorted(encoders.MODELS))
def saved(request, tmp_path):
    return request.param, encoders.write_folder(request.param, tmp_path / request.param)


def test_a_folder_comes_back_as_its_class_bit_for_bit(saved):
    name, folder = saved
    encoder, original = load_encoder(folder), encoders.encoder(name)
    assert type(encoder.model) is type(original.model)
    assert not encoder.model.training and encoder.sides == original.sides
    for side in encoder.sides:
        given = encoders.images(3) if side == "image" else encoders.texts(3)
        inputs = encoder.prepared(side, given)
        assert inputs.keys() == original.prepared(side, given).keys()
        found, expected = (one.seen(side, inputs).pooled_BD for one in (encoder, original))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # weights lie otherwise in memory
    found = encoder.model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in original.model.state_dict().items())


def test_a_folder_is_canonical_and_is_written_again(saved, tmp_path):
    name, folder = saved
    with canonical(Checkpoint.open(folder), tmp_path / "beside") as checkpoint:
        assert set(checkpoint.entries) <= set(encoders.model(name).state_dict())
    model, tokenizer = load(folder)
    again = tmp_path / "again"
    again.mkdir()
    copy = save_model(model, tokenizer, again)
    assert fits(copy)
    assert AutoModel.from_pretrained(again).config.model_type == model.config.model_type
    assert all(torch.equal(copy.tensor(key), value) for key, value in model.state_dict().items() if key in copy.entries)


def test_a_missing_tensor_is_refused(saved):
    _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    gone = next(key for key in tensors if "layer" in key and key.endswith("weight"))
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="missing"):
        load_encoder(folder)


def test_numbers_that_are_not_finite_are_refused(saved):
    _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    key = next(key for key, value in tensors.items() if value.dim() > 1)
    tensors[key].view(-1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="NaN"):
        load_encoder(folder)


def test_half_precision_is_asked_for_and_features_stay_near(tmp_path):
    folder = encoders.write_folder("vit", tmp_path / "vit")
    half, full = load_encoder(folder, dtype="bfloat16"), load_encoder(folder)
    inputs = half.prepared("image", encoders.images(3))
    assert inputs["pixel_values"].dtype == torch.bfloat16
    found = half.seen("image", inputs).pooled_BD.float()
    expected = full.seen("image", full.prepared("image", encoders.images(3))).pooled_BD
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.99


def test_counters_of_batch_norms_travel(tmp_path):
    folder = encoders.write_folder("resnet", tmp_path / "resnet")
    checkpoint = Checkpoint.open(folder)
    counters = [name for name, entry in checkpoint.entries.items() if entry.dtype == torch.int64]
    assert counters and all(name.endswith("num_batches_tracked") for name in counters)
    model = load_encoder(folder).model
    assert all(model.state_dict()[name] == 7 for name in counters)


def test_an_encoder_without_its_pooler_is_built_without(tmp_path):
    torch.manual_seed(0)
    model = BertModel(BertConfig(**encoders._WORDS), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    encoders.tokenizer().save_pretrained(tmp_path)
    assert load_encoder(tmp_path).model.pooler is None
    with canonical(Checkpoint.open(tmp_path), tmp_path / "beside") as checkpoint:
        assert not any("pooler" in name for name in checkpoint.entries)


def test_numbers_of_positions_stored_by_older_versions_are_passed_over(tmp_path):
    folder = encoders.write_folder("bert", tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.position_ids"] = torch.arange(40)[None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert type(load_encoder(folder).model) is BertModel


def test_images_alone_need_no_tokenizer(tmp_path):
    folder = encoders.write_folder("resnet", tmp_path / "resnet")
    assert load(folder)[1] is None
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="came without an image processor"):
        load_encoder(folder).prepared("image", encoders.images(1))


def test_a_decoder_is_loaded_as_an_encoder_of_texts(tiny_folder):
    encoder = load_encoder(tiny_folder)
    assert encoder.sides == ("text",)
    assert encoder.seen("text", encoder.prepared("text", ["ab"])).pooled_BD.shape == (1, 64)


def test_pickles_and_strange_classes_are_refused(tmp_path):
    folder = encoders.write_folder("bert", tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["CLIPModel"]}))
    with pytest.raises(ModelError, match="'CLIPModel', which is no model of a BertConfig"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsafeFileError, match=r"pytorch_model\.bin"):
        load_encoder(folder)


def test_a_text_classifier_keeps_its_head(tmp_path):
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**encoders._WORDS, num_labels=4)).save_pretrained(tmp_path)
    encoders.tokenizer().save_pretrained(tmp_path)
    model, _ = load(tmp_path)
    assert type(model) is BertForSequenceClassification and model.classifier.out_features == 4


def test_encoders_are_told_from_decoders_by_their_heads():
    quiet = dict(text_config=encoders._WORDS, vision_config=encoders._EYES)
    assert all(is_encoder(config) for config in (CLIPConfig(**quiet), ResNetConfig(), BertConfig(), MPNetConfig()))
    assert not any(is_encoder(config) for config in (LlamaConfig(), T5Config(), BartConfig()))
    assert not is_encoder(BertConfig(is_decoder=True))
    assert encoder_class(BertConfig()) is BertModel
    assert encoder_class(BertConfig(architectures=["BertLMHeadModel"])) is BertLMHeadModel

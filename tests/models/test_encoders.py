"""Encoders by structure: what a probe reads, what every stage gives, in one forward pass, alone or in a batch."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CLIPTextModel,
    CLIPVisionModelWithProjection,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
)

import tiny
import tiny_encoders as encoders
import tiny_images
from perdure.errors import ModelError, RequestError
from perdure.models.encoders import DecoderEncoder, Encoder
from perdure.models.towers import masked_mean

EACH = [(name, "image") for name in encoders.IMAGES] + [(name, "text") for name in encoders.TEXTS]
each_side = pytest.mark.parametrize(("name", "side"), EACH, ids=[f"{name}-{side}" for name, side in EACH])


def items(side, count=6):
    return encoders.images(count) if side == "image" else encoders.texts(count)


def decoder():
    return Encoder.of(tiny.llama(), encoders.tokenizer())


def assert_near(found, expected):
    """Equal to 1e-5 of the largest feature, or of 1."""
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)


@each_side
def test_a_row_is_the_same_alone_and_in_any_batch(name, side):
    encoder, given = encoders.encoder(name), items(side)
    stages = list(encoder.stages(side))
    whole = encoder.seen(side, encoder.prepared(side, given), stages)
    turned = encoder.seen(side, encoder.prepared(side, given[::-1]), stages)
    assert whole.pooled_BD.std(0).mean() > 1e-2  # the rows are not all alike
    assert_near(turned.pooled_BD.flip(0), whole.pooled_BD)
    for row, item in enumerate(given):
        alone = encoder.seen(side, encoder.prepared(side, [item]), stages)
        assert_near(alone.pooled_BD[0], whole.pooled_BD[row])
        for stage in stages:
            kept = slice(None) if alone.mask_BT is None else alone.mask_BT[0]
            among = slice(None) if whole.mask_BT is None else whole.mask_BT[row]
            assert_near(alone.stages[stage][0][kept], whole.stages[stage][row][among])


@each_side
def test_stages_stand_in_depth_order_and_cost_one_forward_pass(name, side):
    encoder = encoders.encoder(name)
    stages, run = encoder.stages(side), []
    hooks = [module.register_forward_hook(lambda *_, at=at: run.append(at)) for at, module in stages.items()]
    seen = encoder.seen(side, encoder.prepared(side, items(side)), list(stages))
    assert run == list(stages) and len(stages) >= 3
    assert all(dict(encoder.model.named_modules())[stage] is module for stage, module in stages.items())
    assert list(seen.stages) == list(stages)
    for hook in hooks:
        hook.remove()
    assert not any(module._forward_hooks for module in encoder.model.modules())


@each_side
def test_every_stage_reaches_what_a_probe_reads(name, side):
    encoder = encoders.encoder(name)
    inputs = encoder.prepared(side, items(side))
    for module in encoder.model.parameters():
        module.requires_grad_(True)
    seen = encoder.seen(side, inputs, list(encoder.stages(side)), grad=True)
    for stage, module in encoder.stages(side).items():
        weight = next(weight for weight in module.parameters() if weight.dim() > 1)
        for feature in (seen.pooled_BD, seen.stages[stage]):
            (gradient,) = torch.autograd.grad(feature.square().sum(), weight, retain_graph=True)
            assert gradient.abs().sum() > 0
    assert not encoder.seen(side, inputs, list(encoder.stages(side))).pooled_BD.requires_grad


def test_without_stages_nothing_else_is_kept():
    encoder = encoders.encoder("vit")
    seen = encoder.seen("image", encoder.prepared("image", items("image")))
    assert seen.stages == {} and seen.mask_BT is None and seen.pooled_BD.shape == (6, 16)


# What a probe reads, against the classes' own documented way


def test_two_towers_give_projected_embeddings():
    encoder = encoders.encoder("clip")
    pictures, words = encoder.prepared("image", items("image")), encoder.prepared("text", items("text"))
    with torch.no_grad():
        whole = encoder.model(**pictures, **words)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(encoder.seen("image", pictures).pooled_BD), whole.image_embeds)
    torch.testing.assert_close(unit(encoder.seen("text", words).pooled_BD), whole.text_embeds)
    weights = encoder.class_weights(items("text"), ("{}",))
    scores = unit(encoder.seen("image", pictures).pooled_BD) @ weights.T * encoder.logit_scale
    torch.testing.assert_close(scores, whole.logits_per_image, rtol=1e-4, atol=1e-4)


def test_one_tower_of_two_is_an_encoder():
    whole = encoders.model("clip")
    vision = CLIPVisionModelWithProjection(whole.config.vision_config).eval()
    vision.vision_model, vision.visual_projection = whole.vision_model, whole.visual_projection
    encoder = Encoder.of(vision, None, encoders.PROCESSORS["clip"]())
    inputs = encoder.prepared("image", items("image"))
    assert encoder.sides == ("image",)
    expected = encoders.encoder("clip").seen("image", inputs).pooled_BD
    torch.testing.assert_close(encoder.seen("image", inputs).pooled_BD, expected)
    text = Encoder.of(CLIPTextModel(whole.config.text_config).eval(), encoders.tokenizer())
    inputs = text.prepared("text", items("text"))
    torch.testing.assert_close(text.seen("text", inputs).pooled_BD, text.model(**inputs).pooler_output)


def test_averaged_prompts_are_of_length_one():
    encoder = encoders.encoder("siglip")
    weights = encoder.class_weights(["cat", "dog"], ("a photo of a {}.", "a {}."))
    each = encoder.text_embedding(["a photo of a dog.", "a dog."])
    torch.testing.assert_close(weights.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(weights[1], torch.nn.functional.normalize(each.mean(0), dim=0))


def test_texts_are_averaged_over_their_own_tokens():
    encoder = encoders.encoder("bert")
    inputs = encoder.prepared("text", ["ab", "abcdefgh"])
    seen = encoder.seen("text", inputs)
    assert seen.mask_BT.tolist() == [[True] * 4 + [False] * 6, [True] * 10]
    hidden = encoder.model(**inputs).last_hidden_state
    torch.testing.assert_close(seen.pooled_BD[0], hidden[0, :4].mean(0))


def test_a_mean_by_hand():
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]], dtype=torch.float64)
    found = masked_mean(hidden, torch.tensor([[True, True, False]]))
    assert found.tolist() == [[2.0, 4.0]]
    assert masked_mean(hidden[:, :2], None).tolist() == [[2.0, 4.0]]


def test_of_a_vision_transformer_the_first_token_is_read():
    encoder = encoders.encoder("vit")
    inputs = encoder.prepared("image", items("image"))
    pooled = encoder.seen("image", inputs).pooled_BD
    torch.testing.assert_close(encoder.model.classifier(pooled), encoder.model(**inputs).logits)


def test_a_pooler_above_the_first_token_is_passed_over():
    torch.manual_seed(0)
    config = ViTConfig(**encoders._EYES)
    model = ViTModel(config).eval()
    encoder = Encoder.of(model, None, encoders.PROCESSORS["vit"]())
    inputs = encoder.prepared("image", items("image"))
    torch.testing.assert_close(encoder.seen("image", inputs).pooled_BD, model(**inputs).last_hidden_state[:, 0])


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "convnext"])
def test_convolutional_nets_are_averaged_as_their_classifier_reads_them(name):
    encoder = encoders.encoder(name)
    inputs = encoder.prepared("image", items("image"))
    seen = encoder.seen("image", inputs, list(encoder.stages("image")))
    torch.testing.assert_close(encoder.model.classifier(seen.pooled_BD), encoder.model(**inputs).logits)
    if name == "resnet":
        last = seen.stages["resnet.encoder.stages.2"]
        torch.testing.assert_close(last.mean(1), seen.pooled_BD)
        assert [stage.shape[1:] for stage in seen.stages.values()] == [(64, 8), (16, 12), (4, 16)]


def test_a_map_is_read_row_by_row_without_a_copy():
    encoder = encoders.encoder("resnet")
    kept = []
    hook = encoder.stages("image")["resnet.encoder.stages.0"].register_forward_hook(
        lambda _m, _i, out: kept.append(out)
    )
    seen = encoder.seen("image", encoder.prepared("image", items("image")), ["resnet.encoder.stages.0"])
    hook.remove()
    stage = seen.stages["resnet.encoder.stages.0"]
    assert stage.data_ptr() == kept[0].data_ptr()
    assert torch.equal(stage[1, 8 * 2 + 3], kept[0][1, :, 2, 3])


def test_masked_language_models_and_classifiers_are_read_below_their_heads():
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**encoders._WORDS)).eval()
    encoder = Encoder.of(model, encoders.tokenizer())
    assert encoder.seen("text", encoder.prepared("text", ["ab"])).pooled_BD.shape == (1, 16)
    assert next(iter(encoder.stages("text"))) == "bert.encoder.layer.0"


# Decoders


def test_a_decoder_is_read_at_half_depth_and_at_the_end():
    encoder = decoder()
    assert isinstance(encoder, DecoderEncoder) and encoder.sides == ("text",)
    inputs = encoder.prepared("text", ["ab", "abcdefgh"])
    seen = encoder.seen("text", inputs, ["model.layers.3"])
    assert list(seen.stages) == ["model.layers.3"] and seen.pooled_BD.shape == (2, 64)
    with torch.no_grad():
        states = encoder.model(**inputs, output_hidden_states=True).hidden_states
    for part, hidden in ((slice(0, 32), states[2]), (slice(32, 64), states[4])):
        mean = hidden[0, 1:4].mean(0)  # not the start token, not the padding
        torch.testing.assert_close(seen.pooled_BD[0, part], mean / mean.norm())
    assert seen.mask_BT[0].tolist() == [False, True, True, True] + [False] * 6


def test_a_decoder_reads_a_row_the_same_in_any_batch_and_keeps_nothing():
    encoder, given = decoder(), encoders.texts(5)
    whole = encoder.seen("text", encoder.prepared("text", given)).pooled_BD
    for row, text in enumerate(given):
        alone = encoder.seen("text", encoder.prepared("text", [text])).pooled_BD
        torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-5)


def test_a_model_that_also_reads_images_is_read_by_its_words():
    encoder = Encoder.of(tiny_images.llava(), tiny_images.llava_processor().tokenizer)
    seen = encoder.seen("text", encoder.prepared("text", ["ab", "abcd"]), list(encoder.stages("text")))
    assert seen.pooled_BD.shape == (2, 64) and len(seen.stages) == tiny.DEPTH


def test_a_start_token_alone_still_counts():
    encoder = Encoder.of(tiny.llama(), tiny.tokenizer())
    inputs = encoder.prepared("text", ["<s>", "ab"])
    assert encoder.seen("text", inputs).mask_BT.tolist() == [[True, False], [True, True]]


# What is read


def test_images_of_every_kind_are_prepared_alike():
    encoder = encoders.encoder("vit")
    array = encoders.images(2)[1]
    alike = [array, Image.fromarray(array), np.dstack([array, np.full(array.shape[:2], 9, np.uint8)])]
    found = encoder.prepared("image", alike)["pixel_values"]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    grey = array[..., 0]
    found = encoder.prepared("image", [grey, grey[..., None], Image.fromarray(grey)])["pixel_values"]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("item", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), "a.png"])
def test_what_is_no_image_is_refused(item):
    with pytest.raises(RequestError, match="image"):
        encoders.encoder("vit").prepared("image", [item])


@pytest.mark.parametrize("item", [3, "\ud800"])
def test_what_is_no_text_is_refused(item):
    with pytest.raises(RequestError, match="text"):
        encoders.encoder("bert").prepared("text", ["ab", item])


@pytest.mark.parametrize(("name", "longest"), [("bert", 40), ("roberta", 40), ("mpnet", 40), ("clip", 40)])
def test_long_texts_are_cut_to_what_positions_allow(name, longest):
    encoder = encoders.encoder(name)
    inputs = encoder.prepared("text", ["a" * 200, "b"])
    assert inputs["input_ids"].shape == (2, longest)
    assert inputs["input_ids"][0, -1] == 1  # the token that ends a text is kept
    assert torch.isfinite(encoder.seen("text", inputs).pooled_BD).all()


def test_less_is_read_where_it_is_asked():
    encoder = Encoder.of(tiny.llama(), encoders.tokenizer(), max_tokens=7)
    assert encoder.prepared("text", ["a" * 30])["input_ids"].shape == (1, 7)


def test_where_padding_is_read_every_row_has_the_full_length():
    encoder = encoders.encoder("siglip")
    inputs = encoder.prepared("text", ["ab"])
    assert list(inputs) == ["input_ids"] and inputs["input_ids"].shape == (1, 40)
    assert encoder.seen("text", inputs).mask_BT.sum() == 4


def test_what_is_not_there_is_said():
    encoder = encoders.encoder("bert")
    with pytest.raises(ModelError, match="BertModel reads texts; images were asked for"):
        encoder.prepared("image", encoders.images(1))
    with pytest.raises(ModelError, match=r"zero-shot needs a tower for images"):
        encoder.text_embedding(["a"])
    with pytest.raises(ModelError, match=r"no stage 'nine'. Known: encoder.layer.0"):
        encoder.seen("text", encoder.prepared("text", ["a"]), ["nine"])
    with pytest.raises(ModelError, match="at least one"):
        encoder.prepared("text", [])
    with pytest.raises(ModelError, match="BertModel came without a tokenizer, so texts"):
        Encoder.of(encoders.model("bert")).prepared("text", ["a"])
    torch.manual_seed(0)
    sequences = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2, vocab_size=20)
    with pytest.raises(ModelError):
        Encoder.of(T5Model(sequences), encoders.tokenizer())


# Identity


@each_side
def test_the_digest_tells_weights_and_reading_apart(name, side):
    encoder = encoders.encoder(name)
    assert encoder.digest == encoders.encoder(name).digest
    assert encoder.digest != encoders.encoder(name, seed=1).digest
    before = encoder.digest
    encoder.prepared(side, items(side))
    assert encoder.digest == before  # using it changes nothing
    next(iter(encoder.model.parameters())).add_(1)
    assert encoder.digest != before


def test_a_given_version_spares_the_hashing():
    encoder = encoders.encoder("bert")
    encoder.version = "v1"
    before = encoder.digest
    next(iter(encoder.model.parameters())).add_(1)
    assert encoder.digest == before
    encoder.version = "v2"
    assert encoder.digest != before


def test_another_length_or_size_is_another_digest():
    short = Encoder.of(encoders.model("bert"), encoders.tokenizer(), max_tokens=8)
    assert short.digest != encoders.encoder("bert").digest
    processor = encoders.PROCESSORS["vit"]()
    processor.image_mean = [0.1, 0.2, 0.3]
    assert Encoder.of(encoders.model("vit"), None, processor).digest != encoders.encoder("vit").digest


@pytest.mark.parametrize(("name", "targets"), [("vit", ["q_proj"]), ("bert", ["query"]), ("clip", ["q_proj"])])
def test_adapters_are_looked_through(name, targets):
    from peft import LoraConfig, get_peft_model

    plain = encoders.encoder(name)
    side = plain.sides[0]
    inputs = plain.prepared(side, items(side))
    expected = plain.seen(side, inputs).pooled_BD
    names = [part for part, module in plain.model.named_modules() if isinstance(module, torch.nn.Linear)]
    found = [target for target in (*targets, "query", "q_proj") if any(part.endswith(target) for part in names)]
    adapted = get_peft_model(
        encoders.model(name), LoraConfig(r=2, target_modules=found[:1], init_lora_weights=False)
    ).eval()
    encoder = Encoder.of(adapted, encoders.tokenizer(), encoders.PROCESSORS.get(name, lambda: None)())
    assert list(encoder.stages(side)) == list(plain.stages(side))
    assert (encoder.seen(side, inputs).pooled_BD - expected).abs().max() > 1e-4
    with adapted.disable_adapter():
        torch.testing.assert_close(encoder.seen(side, inputs).pooled_BD, expected)
    assert encoder.digest != plain.digest


def test_modes_are_left_as_they_are():
    encoder = encoders.encoder("bert")
    encoder.model.train()
    inputs = encoder.prepared("text", items("text"))
    first, second = (encoder.seen("text", inputs).pooled_BD for _ in range(2))
    assert encoder.model.training and not torch.equal(first, second)  # dropout is at work

"""Random encoders of some ten thousand parameters, with tokenizers and image processors, built in memory."""

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2Model,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MPNetConfig,
    MPNetModel,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import tiny
from perdure.models.encoders import Encoder

SIDE, DEPTH = 32, 3
_BLOCKS = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=DEPTH, num_attention_heads=2)
_EYES = _BLOCKS | dict(image_size=SIDE, patch_size=8, initializer_range=0.2)
_WORDS = _BLOCKS | dict(
    vocab_size=tiny.VOCAB, max_position_embeddings=40, bos_token_id=0, eos_token_id=1, pad_token_id=259,
    initializer_range=0.2,
)  # fmt: skip
_SQUARE = dict(size={"height": SIDE, "width": SIDE})
_CROP = dict(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def tokenizer(**more):
    """The byte-level one that ends every text, and pads with a token of its own."""
    from tokenizers.processors import TemplateProcessing

    made = tiny.tokenizer()
    made.add_tokens(["<pad>"], special_tokens=True)
    made.add_tokens(["<more>"], special_tokens=True)
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    made.pad_token = "<more>"  # the last id of the vocabulary
    for name, value in more.items():
        setattr(made, name, value)
        made.init_kwargs[name] = value
    return made


def clip():
    return CLIPModel(CLIPConfig(text_config=_WORDS, vision_config=_EYES, projection_dim=12))


def siglip():
    return SiglipModel(SiglipConfig(text_config=_WORDS | dict(projection_size=16), vision_config=_EYES))


def vit():
    return ViTForImageClassification(ViTConfig(**_EYES, num_labels=3))


def dinov2():
    return Dinov2Model(Dinov2Config(**_EYES))


def resnet():
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16], depths=[1, 1, 1], layer_type="basic", num_labels=3)
    )


def mobilenet():
    return MobileNetV2ForImageClassification(MobileNetV2Config(depth_multiplier=0.25, min_depth=4, num_labels=3))


def convnext():
    return ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[8, 12, 16, 16], depths=[1, 1, 1, 1]))


def bert():
    return BertModel(BertConfig(**_WORDS))


def roberta():
    return RobertaForSequenceClassification(RobertaConfig(**_WORDS | dict(pad_token_id=1, max_position_embeddings=42)))


def mpnet():
    return MPNetModel(MPNetConfig(**_WORDS | dict(pad_token_id=1, max_position_embeddings=42)))


MODELS = {
    "clip": clip, "siglip": siglip, "vit": vit, "dinov2": dinov2, "resnet": resnet, "mobilenet": mobilenet,
    "convnext": convnext, "bert": bert, "roberta": roberta, "mpnet": mpnet,
}  # fmt: skip
PROCESSORS = {
    "clip": lambda: CLIPImageProcessorPil(**_CROP),
    "siglip": lambda: SiglipImageProcessorPil(**_SQUARE),
    "vit": lambda: ViTImageProcessorPil(**_SQUARE),
    "dinov2": lambda: CLIPImageProcessorPil(**_CROP),
    "resnet": lambda: ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=1.0),
    "mobilenet": lambda: MobileNetV2ImageProcessorPil(**_CROP),
    "convnext": lambda: ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=1.0),
}
TOKENIZERS = {
    "clip": tokenizer,
    "siglip": lambda: tokenizer(model_input_names=["input_ids"]),
    "bert": tokenizer,
    "roberta": lambda: tokenizer(pad_token="</s>"),
    "mpnet": lambda: tokenizer(pad_token="</s>"),
}
CONVOLUTIONAL = ("resnet", "mobilenet", "convnext")
IMAGES = [name for name in MODELS if name in PROCESSORS]
TEXTS = [name for name in MODELS if name in TOKENIZERS]


def model(name, seed=0):
    torch.manual_seed(seed)
    made = MODELS[name]().eval().requires_grad_(False)
    for module in made.modules():  # as if it had seen images: no signal dies out, and statistics are of something
        if isinstance(module, torch.nn.Conv2d) and name in CONVOLUTIONAL:
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    return made


def encoder(name, seed=0):
    parts = (made[name]() if name in made else None for made in (TOKENIZERS, PROCESSORS))
    return Encoder.of(model(name, seed), *parts)


def write_folder(name, folder):
    """A from_pretrained folder with the model and what prepares its inputs."""
    model(name).save_pretrained(folder)
    for made in (TOKENIZERS, PROCESSORS):
        if name in made:
            made[name]().save_pretrained(folder)
    return folder


def images(count, seed=0):
    """Arrays [H, W, 3] of several sizes, the first one grey [H, W]."""
    drawn = np.random.default_rng(seed)
    sizes = [(28, 28), *((int(drawn.integers(20, 60)), int(drawn.integers(20, 60)), 3) for _ in range(count - 1))]
    return [drawn.integers(0, 256, size, dtype=np.uint8) for size in sizes]


def texts(count, seed=0):
    """Texts of 1 to 30 letters."""
    drawn = np.random.default_rng(seed)
    return ["".join(drawn.choice(list("abcdef "), drawn.integers(1, 31))) + "." for _ in range(count)]

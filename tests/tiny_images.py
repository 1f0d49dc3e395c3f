"""Random models of some ten thousand parameters that read images and text, with processors, built in memory.

The vision towers are as deep as the decoders, which must not confuse anything.
"""

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

import tiny as models

IMAGE, SIDE = 258, 32
CHAT = (
    "{% for message in messages %}{{ message['role'] }}:"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}</s>\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
WORDS = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=models.DEPTH, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, vocab_size=320, bos_token_id=0, eos_token_id=1,
    initializer_range=0.2,
)  # fmt: skip
EYES = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=models.DEPTH, num_attention_heads=2)


def _tokenizer(*more):
    made = models.tokenizer()
    assert len(made) == IMAGE
    made.add_tokens(["<image>", *more], special_tokens=True)
    return made


def llava(seed=0, **more):
    """CLIP's vision and Llama's words; four tokens an image."""
    torch.manual_seed(seed)
    eyes = EYES | dict(model_type="clip_vision_model", image_size=SIDE, patch_size=16, projection_dim=16)
    config = LlavaConfig(
        text_config=WORDS | dict(model_type="llama"), vision_config=eyes, image_token_id=IMAGE, image_seq_length=4,
        **more,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config).eval().requires_grad_(False)


def llava_processor(chat_template=CHAT):
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(
        pictures, _tokenizer(), patch_size=16, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=chat_template,
    )  # fmt: skip


def idefics3(seed=0):
    """The classes of SmolVLM's first checkpoints; four tokens an image, among others that mark it."""
    torch.manual_seed(seed)
    config = Idefics3Config(
        text_config=WORDS | dict(model_type="llama"), vision_config=EYES | dict(image_size=SIDE, patch_size=8),
        image_token_id=IMAGE, scale_factor=2, tie_word_embeddings=True,
    )  # fmt: skip
    return Idefics3ForConditionalGeneration(config).eval().requires_grad_(False)


def idefics3_processor(chat_template=CHAT):
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE})
    marks = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    tokenizer = _tokenizer(*marks, *(f"<row_{i}_col_{j}>" for i in (1, 2) for j in (1, 2)))
    return Idefics3Processor(pictures, tokenizer, image_seq_len=4, chat_template=chat_template)


def qwen2_vl(seed=0):
    torch.manual_seed(seed)
    turns = dict(rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2]})
    config = Qwen2VLConfig(
        text_config=WORDS | turns, image_token_id=IMAGE, video_token_id=259, vision_start_token_id=260,
        vision_config=dict(depth=models.DEPTH, embed_dim=16, hidden_size=32, num_heads=2, patch_size=4, mlp_ratio=2),
    )  # fmt: skip
    return Qwen2VLForConditionalGeneration(config).eval().requires_grad_(False)


FAMILIES = {"llava": llava, "idefics3": idefics3, "qwen2_vl": qwen2_vl}
PROCESSORS = {"llava": llava_processor, "idefics3": idefics3_processor}


def write_folder(name, folder):
    """A from_pretrained folder of the model; with its processor, or, for Qwen2-VL, its tokenizer alone."""
    FAMILIES[name]().save_pretrained(folder)
    (PROCESSORS[name]() if name in PROCESSORS else models.tokenizer()).save_pretrained(folder)
    return folder


def draw(path, colour):
    """A picture file of one colour."""
    from PIL import Image

    Image.new("RGB", (SIDE, SIDE), colour).save(path)
    return str(path)

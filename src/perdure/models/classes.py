"""Which class of transformers a config's model is: a decoder, one that also reads images, or an encoder."""

import inspect
import sys
from collections.abc import Collection
from typing import Any

import torch

from perdure.errors import ModelError


def is_encoder(config: Any) -> bool:
    """Whether a config is of an encoder of images or texts, which writes nothing.

    Seen by which heads transformers has for it: an encoder has none that writes text, or, like BERT, one that fills
    gaps, and is not set to decode.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_MAPPING,
    )

    kind = type(config)
    if kind not in MODEL_MAPPING or getattr(config, "is_encoder_decoder", False):
        return False
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return kind in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)


def encoder_class(config: Any) -> Any:
    """The class that an encoder was saved from; where its config names none, the bare model's.

    Raises:
        ModelError: The config names a class that is none of its own.
    """
    from transformers import PreTrainedModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    bare = MODEL_MAPPING[type(config)]
    bare = bare[0] if isinstance(bare, list | tuple) else bare
    named = (getattr(config, "architectures", None) or [bare.__name__])[0]
    found = getattr(sys.modules[bare.__module__], str(named), None)
    known = isinstance(found, type) and issubclass(found, PreTrainedModel)
    if not known or getattr(found, "config_class", None) is not type(config):
        raise ModelError(
            f"the config names the class {str(named)[:60]!r}, which is no model of a {type(config).__name__}; "
            f"{bare.__name__} is one"
        )
    return found


def auto_class(config: Any) -> Any:
    """The auto class of transformers that builds a decoder's config: of text alone, or of images and text.

    A few configs serve both kinds; there the class that the checkpoint was saved from decides.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    kind = type(config)
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForCausalLM
    name = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[kind].__name__
    seeing = kind not in MODEL_FOR_CAUSAL_LM_MAPPING or name in (config.architectures or ())
    return AutoModelForImageTextToText if seeing else AutoModelForCausalLM


def blank_model(config: Any, names: Collection[str]) -> Any:
    """The model of a config on the meta device: its class and its shapes, without weights.

    Args:
        config: As transformers reads it.
        names: The tensors that it is for.
    """
    with torch.device("meta"):
        if not is_encoder(config):
            return auto_class(config).from_config(config, trust_remote_code=False)
        made = encoder_class(config)
        return made._from_config(config, **parts_of(made, names))


def parts_of(made: Any, names: Collection[str]) -> dict[str, bool]:
    """The arguments by which a class is built without its pooler, where no tensor is one of a pooler's.

    Many encoders are stored without it: a layer above the first token, which nothing here reads.
    """
    optional = "add_pooling_layer" in inspect.signature(made.__init__).parameters
    pooled = any(".pooler." in f".{name}" for name in names)
    return {"add_pooling_layer": False} if optional and not pooled else {}

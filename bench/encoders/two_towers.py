"""Two towers without CLIP: MiniLM's sentences, mapped onto the classifier of a ResNet that was trained on ImageNet.

A ridge regression takes the embedding of "a photo of a {class}" to the centred, normalised row of that class in the
ResNet's classifier; an image is its pooled features less a fixed mean. A class never seen is then recognised by its
name alone, as with CLIP. Shape suffixes: N classes, E features of a sentence, D of an image, B rows.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from perdure.measuring.concept_features import BATCH
from perdure.models.encoders import TEMPLATES, Encoder

PENALTY = 0.3


class TwoTowers(nn.Module):
    """An image tower and a text tower with one space, as `CLIPModel` has them."""

    def __init__(self, image: Any, text: Any, map_ED: Tensor, mean_D: Tensor) -> None:
        super().__init__()
        self.image, self.text, self.config = image, text, image.config
        self.map_ED, self.mean_D = nn.Parameter(map_ED), nn.Parameter(mean_D)
        self.eval()

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """What the image tower gives [B, D], less the mean."""
        pooled: Tensor = self.image(pixel_values=pixel_values).pooler_output.flatten(1)
        return pooled - self.mean_D

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor, **more: Tensor) -> Tensor:
        """A sentence in the space of the images [B, D]."""
        hidden_BTE = self.text(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state
        weight_BT1 = attention_mask.to(hidden_BTE)[..., None]
        return normalize((hidden_BTE * weight_BT1).sum(1) / weight_BT1.sum(1), dim=-1) @ self.map_ED


def ridge(sentence_NE: Tensor, target_ND: Tensor, penalty: float = PENALTY) -> Tensor:
    """The map [E, D] that minimises ‖X·M − Y‖² + penalty·‖M‖², in float64."""
    sentences, targets = sentence_NE.double(), target_ND.double()
    gram_EE = sentences.T @ sentences + penalty * torch.eye(sentences.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram_EE, sentences.T @ targets)


def class_names(folder: Path, config: Any) -> list[str]:
    """The names of a classifier's classes: labels.json beside it, or those in its config."""
    file = folder / "labels.json"
    given = json.loads(file.read_text()) if file.is_file() else config.id2label
    names = {int(number): str(name).split(",")[0].replace("_", " ") for number, name in given.items()}
    return [names[number] for number in sorted(names)]


@torch.no_grad()
def two_towers(image: Encoder, text: Encoder, weight_ND: Tensor, names: Sequence[str], pictures: Any) -> Encoder:
    """The encoder of both sides.

    Args:
        image: The ResNet.
        text: The sentence encoder.
        weight_ND: The ResNet's classifier.
        names: The names of its classes.
        pictures: Images whose mean feature is taken off.
    """
    asked = [TEMPLATES[0].format(name) for name in names]
    sentences = [
        text.seen("text", text.prepared("text", asked[start : start + BATCH])).pooled_BD
        for start in range(0, len(asked), BATCH)
    ]
    map_ED = ridge(normalize(torch.cat(sentences), dim=-1), normalize(weight_ND - weight_ND.mean(0), dim=-1))
    seen = [
        image.seen("image", image.prepared("image", pictures[start : start + BATCH])).pooled_BD
        for start in range(0, len(pictures), BATCH)
    ]
    trunks = (image.tower("image").trunk, text.tower("text").trunk)
    model = TwoTowers(*trunks, map_ED.float(), torch.cat(seen).mean(0))
    return Encoder.of(model, text.reading["text"].tokenizer, image.reading["image"].processor)  # type: ignore[union-attr]

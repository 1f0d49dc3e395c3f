"""Real encoders, fetched once from PyPI: MiniLM of sentences, MobileNetV2 of images."""

import pytest
import torch

from perdure.errors import ModelError
from perdure.models.encoders import load_encoder

pytestmark = pytest.mark.real_model
PALACE = 698  # ImageNet's class of the one picture in scikit-learn that shows one


def loaded(name):
    try:
        return load_encoder(name)
    except ModelError as error:
        if "pip could not fetch" not in str(error):
            raise
        pytest.skip(f"no package registry here: {error}")


def test_sentences_of_one_meaning_are_near():
    encoder = loaded("minilm")
    texts = ["How do I return the kettle?", "I want to send the kettle back.", "Where is the Eiffel Tower?"]
    inputs = encoder.prepared("text", texts)
    unit = torch.nn.functional.normalize(encoder.seen("text", inputs).pooled_BD, dim=1)
    near, far = float(unit[0] @ unit[1]), max(float(unit[at] @ unit[2]) for at in (0, 1))
    assert near > 0.6 and far < 0.2
    assert len(encoder.stages("text")) == 6
    assert encoder.prepared("text", ["word " * 900])["input_ids"].shape == (1, 256)  # as it was trained


def test_a_palace_is_recognised():
    datasets = pytest.importorskip("sklearn.datasets")
    encoder = loaded("mobilenet-v2")
    seen = encoder.seen("image", encoder.prepared("image", [datasets.load_sample_image("china.jpg")]))
    assert encoder.model.classifier(seen.pooled_BD).softmax(1)[0, PALACE] > 0.5
    assert len(encoder.stages("image")) == 16

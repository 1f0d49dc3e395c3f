"""Encoders as the base of a workspace: taken in, checked and exported as they are."""

import pytest
import torch

import tiny_encoders as encoders
from perdure import Workspace
from perdure.models.encoders import load_encoder


@pytest.mark.parametrize("name", ["resnet", "bert", "vit"])
def test_an_encoder_is_exported_bit_for_bit(tmp_path, name):
    folder = encoders.write_folder(name, tmp_path / name)
    shop = Workspace.init(tmp_path / "shop", folder, actor="sato")
    assert shop.archive.verify().ok
    shop.export("v0", tmp_path / "out")
    encoder, original = load_encoder(tmp_path / "out"), encoders.encoder(name)
    assert encoder.sides == original.sides
    again, found = type(original.model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    for name, weight in original.model.state_dict().items():  # under the running model's names, as of any base
        assert torch.equal(encoder.model.state_dict()[name], weight) and torch.equal(again.state_dict()[name], weight)

from functools import partial

import pytest
import torch
from torch import nn

from perdure.errors import ModelError
from perdure.models import capture, hidden_of, layout_of, patch_output, resume_above, returns_tuple

IDS = torch.tensor([[5, 9, 3, 7]])


def test_capture_sees_inputs_and_outputs_and_stops(family):
    model, _ = family
    layout = layout_of(model)
    later = []
    hook = layout.blocks[3].register_forward_hook(lambda *_: later.append(1))
    seen = capture(
        lambda: model(IDS),
        inputs={"key": layout.mlp_out[1].module},
        outputs={"block": layout.blocks[1], "mlp": layout.mlps[1]},
    )
    hook.remove()
    assert seen["key"].shape == (1, 4, layout.d_ff)
    assert seen["block"].shape == seen["mlp"].shape == (1, 4, layout.d_model)
    assert not later


def test_capture_names_what_was_never_reached(tiny):
    model, _ = tiny
    with pytest.raises(ModelError, match="never reached"):
        capture(lambda: model(IDS), outputs={"stranger": nn.Linear(2, 2)})


def test_patching_with_the_own_value_changes_nothing(family):
    model, _ = family
    plain = model(IDS).logits
    with patch_output(layout_of(model).blocks[1], lambda hidden: hidden.clone()):
        assert torch.equal(model(IDS).logits, plain)
    with patch_output(layout_of(model).blocks[1], lambda hidden: hidden * 2):
        assert not torch.allclose(model(IDS).logits, plain)
    assert torch.equal(model(IDS).logits, plain)


def test_resuming_above_gives_the_logits_of_the_whole(family):
    model, _ = family
    layout = layout_of(model)
    plain = model(IDS).logits
    hidden = capture(lambda: model(IDS), outputs={"block": layout.blocks[2]})["block"]
    as_tuple = returns_tuple(model, layout.blocks[2])
    with resume_above(layout.blocks, 2, lambda: hidden, as_tuple=as_tuple):
        torch.testing.assert_close(model(IDS).logits, plain)
    assert torch.equal(model(IDS).logits, plain)


class TupleBlock(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block
        self.attention_type = getattr(block, "attention_type", None)

    def forward(self, *args, **kwargs):
        return (self.block(*args, **kwargs), "more")


def test_tuple_outputs_are_handled():
    block = TupleBlock(nn.Linear(3, 3))
    with patch_output(block, lambda hidden: hidden + 1):
        hidden, more = block(torch.zeros(1, 2, 3))
    torch.testing.assert_close(hidden, block(torch.zeros(1, 2, 3))[0] + 1)
    assert more == "more"
    with pytest.raises(ModelError, match="a Tensor or a tuple"):
        hidden_of({"no": 1})


def test_a_forward_of_an_instance_is_there_again(tiny):
    """accelerate puts one on every block whose weights it moves."""
    model, _ = tiny
    blocks = layout_of(model).blocks
    forward = blocks[0].forward
    hooked = partial(forward)
    blocks[0].forward = hooked
    with resume_above(blocks, 1, lambda: torch.zeros(1, 1, 32), as_tuple=False):
        assert blocks[0].forward is not hooked
    assert blocks[0].forward is hooked
    assert "forward" not in vars(blocks[1])

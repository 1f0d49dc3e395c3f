import pytest
import torch

import tiny as models
from perdure.editing import FineTuningConfig, fine_tuning
from perdure.requests import Fact

FACT = Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_steps_count_in_every_dtype(dtype, tokenizer):
    model = models.llama().to(dtype)
    config = FineTuningConfig(steps=30, learning_rate=2e-4)
    delta = fine_tuning(model, tokenizer, [FACT], config)
    losses = delta.notes["losses"]
    assert losses[-1] < losses[0] - 0.5
    moved = [float((change.dense != 0).float().mean()) for change in delta.changes.values()]
    assert min(moved) > 0.9

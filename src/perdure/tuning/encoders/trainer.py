"""The Trainer of an encoder: two learning rates, and checkpoints of what is trained alone."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from perdure.tuning.encoders.config import EncoderTuningConfig
from perdure.tuning.encoders.item_run import ItemRun
from perdure.tuning.trainer import TaskTrainer

_FILE = "model.safetensors"  # the name by which a Trainer knows that there are weights


class ItemTrainer(TaskTrainer):
    """A Trainer whose checkpoints hold the encoder's trained tensors and the head."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """What has gradients."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: weight.detach().cpu().contiguous() for name, weight in self._trained().items()}, folder / _FILE
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights that were saved, put where they were."""
        kept = load_file(Path(resume_from_checkpoint) / _FILE)
        with torch.no_grad():
            for name, weight in self._trained().items():
                weight.copy_(kept[name])

    def _trained(self) -> dict[str, Any]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}


def optimizer_of(run: ItemRun, config: EncoderTuningConfig) -> torch.optim.Optimizer:
    """AdamW with the head at a learning rate of its own; vectors, such as norms and biases, do not decay."""
    head = [run.model.weight_CD, run.model.bias_C]
    groups = []
    for weights, rate in ((run.trained.parameters(), config.learning_rate), (head, config.head_learning_rate)):
        for decays in (True, False):
            chosen = [weight for weight in weights if (weight.dim() > 1) == decays]
            decay = config.weight_decay if decays else 0.0
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups)

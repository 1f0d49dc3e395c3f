"""Trains a tiny model in each process that torchrun started; the first writes what came out.

python -m torch.distributed.run --nproc_per_node 2 tests/train_together.py OUT.safetensors '{"batch_size": 4}' llama
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

import tiny
import tuning_tasks
from perdure.tuning.config import TuningConfig
from perdure.tuning.run import tune


def main(out, settings, family="llama"):
    torch.set_num_threads(1)
    tuned = tune(tiny.FAMILIES[family](), tiny.tokenizer(), tuning_tasks.UPPER, TuningConfig(**json.loads(settings)))
    losses = [entry["loss"] for entry in tuned.delta.notes["log"] if "loss" in entry]
    tensors = {name: change.value().contiguous() for name, change in tuned.delta.changes.items()}
    rank = dist.get_rank() if dist.is_initialized() else 0
    save_file(tensors, f"{out}.{rank}", metadata={"log": json.dumps(tuned.delta.notes["log"])})
    states = {f"{name}.{key}": tensor for name, state in tuned.states.items() for key, tensor in state.items()}
    save_file(states, f"{out}.{rank}.states")
    Path(f"{out}.{rank}.json").write_text(json.dumps(losses))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    tiny.DEPTH = 2
    main(*sys.argv[1:])

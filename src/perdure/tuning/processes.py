"""Several processes that train together: each reads a part of every batch; weights are whole copies, or sharded.

They are started by torchrun. Low-rank factors are small and stay whole everywhere, so that everything that is done
with them is the same as in one process; FSDP2 shards the weights below them.
"""

import os
from typing import Any, TypeVar

import torch.distributed as dist

from perdure.errors import SettingError, TuneError
from perdure.models import layout_of
from perdure.models.adapters import bare
from perdure.tuning.config import TuningConfig

T = TypeVar("T")


def count() -> int:
    """How many processes were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the process that stores and tells."""
    return rank() == 0


def join(model: Any, config: TuningConfig) -> None:
    """Connect the processes; with sharding=fsdp2 each keeps its share of the model from now on.

    Raises:
        SettingError: Sharding without several processes, or a batch that they cannot share evenly.
        TuneError: The model is on another device than this process is to work on.
    """
    if count() == 1:
        if config.sharding != "none":
            raise SettingError(
                f"sharding={config.sharding} needs several processes: torchrun --nproc_per_node N -m perdure ..."
            )
        return
    if config.batch_size % count():
        raise SettingError(f"batch_size={config.batch_size} is not a multiple of the {count()} processes that share it")
    from accelerate import PartialState

    state = PartialState(cpu=model.device.type == "cpu")
    if model.device.type != "cpu" and model.device != state.device:
        raise TuneError(f"the model is on {model.device} and this process works on {state.device}; load it there")
    if config.sharding == "fsdp2":
        _shard(model)


def _shard(model: Any) -> None:
    """Each block's weights are kept in shards and gathered while it runs."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(model.device.type, (count(),))
    for block in layout_of(model).blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model._is_distributed_loading_by_transformers = True
    if not getattr(model, "is_distributed_loading_by_transformers", False):  # else the Trainer wraps it once more
        raise TuneError("sharding=fsdp2 needs a transformers whose Trainer takes sharded models; 5.23 does")


def agreed(value: T) -> T:
    """The first process's value, in all of them."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def wait() -> None:
    """Go on when all processes are here."""
    if count() > 1:
        dist.barrier()


def check_in_force(model: Any, seen: int, config: TuningConfig) -> None:
    """Several processes and their sharding are really at work.

    Args:
        model: The network that is trained.
        seen: How many processes the Trainer sees.
        config: The settings.

    Raises:
        TuneError: They are not.
    """
    if seen != count():
        raise TuneError(f"torchrun started {count()} processes and the training sees {seen}; nothing was trained")
    if config.sharding == "none":
        return
    from torch.distributed.tensor import DTensor

    matrices = (matrix for layer in layout_of(bare(model)).mlp_matrices for matrix in layer)
    whole = [matrix.name for matrix in matrices if not isinstance(matrix.module.weight, DTensor)]
    if whole:
        raise TuneError(f"sharding={config.sharding} is not in force: {whole[0]} is whole; nothing was trained")

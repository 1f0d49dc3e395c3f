"""Trackers of transformers that a training reports to: whether they can, before the long work begins."""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from perdure.errors import SettingError

_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}
_PLACE = "TENSORBOARD_LOGGING_DIR"


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker whose package is missing, or whose logs would go with the training's own folder.

    Raises:
        SettingError: It is one of these; the message says what to install or to set.
    """
    for name in names:
        packages = _PACKAGES.get(name, ())
        if packages and not any(find_spec(package) for package in packages):
            raise SettingError(f"report_to names {name}, which is not installed: pip install {packages[0]}")
    if "tensorboard" in names and not os.environ.get(_PLACE):
        raise SettingError(f"report_to names tensorboard: the variable {_PLACE} must name the folder of its logs")

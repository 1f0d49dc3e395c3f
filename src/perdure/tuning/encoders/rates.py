"""The learning rate of an encoder where none is given."""

from perdure.models.adapters import bare, is_projection
from perdure.models.encoders import Encoder, Side
from perdure.tuning.encoders.config import EncoderTuningConfig

_ADAPTERS = 2e-4
_CONVOLUTIONAL = 1e-4
_SMALL_TRANSFORMER = 3e-5
_TRANSFORMER = 1e-5
_SMALL = 50_000_000  # parameters


def with_rate(config: EncoderTuningConfig, encoder: Encoder, side: Side) -> EncoderTuningConfig:
    """The settings with a learning rate: the one given, or what nets of this structure bear.

    Raises:
        ModelError: The encoder has no such side.
    """
    if config.learning_rate is not None:
        return config
    return config.model_copy(update={"learning_rate": _ADAPTERS if config.method == "lora" else _rate(encoder, side)})


def _rate(encoder: Encoder, side: Side) -> float:
    """For all weights: a net whose stages have no linear projections is convolutional."""
    parts = (part for stage in encoder.stages(side).values() for part in stage.modules())
    if not any(map(is_projection, parts)):
        return _CONVOLUTIONAL
    count = sum(weight.numel() for weight in bare(encoder.model).parameters())
    return _SMALL_TRANSFORMER if count < _SMALL else _TRANSFORMER

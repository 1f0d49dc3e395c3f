"""The settings of an encoder's tuning, checked when they are given."""

from typing import Literal

from pydantic import Field, model_validator

from perdure.models.encoders import TEMPLATES, Template
from perdure.tuning.config import AveragingConfig, TrainingConfig


class EncoderTuningConfig(TrainingConfig):
    """Settings of an encoder's tuning."""

    kind: Literal["encoder_tuning"] = "encoder_tuning"
    method: Literal["full", "lora"] = Field(
        "full", description="All weights that what a probe reads depends on, or low-rank adapters on the projections"
    )
    head: Literal["linear_probe", "zero_shot", "random"] = Field(
        "linear_probe",
        description="What the head starts from: a probe of the frozen features (LP-FT), the classes' names (two "
        "towers), or nothing",
    )
    templates: tuple[Template, ...] = Field(
        TEMPLATES, min_length=1, description="zero_shot: texts that a class's name is written into"
    )
    targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="Endings of the names of tensors or modules that are trained; all if not given"
    )
    epochs: float = Field(6, gt=0, description="Passes over the items")
    learning_rate: float | None = Field(  # type: ignore[assignment]  # a number wherever something is trained
        None,
        gt=0,
        description="AdamW's learning rate of the encoder; if not given 2e-4 for adapters, 1e-4 for convolutional "
        "nets, 3e-5 for transformers of less than 50 million parameters, 1e-5 for larger ones",
    )
    head_learning_rate: float = Field(1e-3, gt=0, description="AdamW's learning rate of the head")
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="How the learning rate goes on")
    warmup: int | float = Field(
        0.1, ge=0, description="Steps until the learning rate is reached; below 1 the share of all steps"
    )
    batch_size: int = Field(16, ge=1, description="Items of a batch that are learnt")
    averaging: AveragingConfig = AveragingConfig(form="none")

    @model_validator(mode="after")
    def _sensible(self) -> "EncoderTuningConfig":
        if self.averaging.form in {"fixed", "published"}:
            raise ValueError(
                f"averaging.form={self.averaging.form} averages after every step, which encoders do not: take ratio "
                "(WiSE-FT), sound or none"
            )
        if self.averaging.form == "ratio" and self.head == "random":
            raise ValueError(
                "averaging.form=ratio (WiSE-FT) averages the head too, and a random one knows nothing: "
                "take head=linear_probe or head=zero_shot"
            )
        return self

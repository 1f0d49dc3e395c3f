"""The settings of an encoder's tuning, checked when they are given."""

from typing import Literal

from pydantic import Field, model_validator

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
    templates: tuple[str, ...] = Field(
        ("a photo of a {}.",), min_length=1, description="zero_shot: texts that a class's name is written into"
    )
    targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="Endings of the names of tensors or modules that are trained; all if not given"
    )
    learning_rate: float = Field(1e-5, gt=0, description="AdamW's learning rate of the encoder")
    head_learning_rate: float = Field(1e-3, gt=0, description="AdamW's learning rate of the head")
    batch_size: int = Field(32, ge=1, description="Items of a batch")
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

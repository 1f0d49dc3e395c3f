"""The settings of a tuning, checked when they are given."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from perdure.tuning.regularizer import RegularizerConfig, made

_FROZEN = ConfigDict(frozen=True, extra="forbid")
_LEARNT_PER_ANCHOR = 8


class AveragingConfig(BaseModel):
    """How the trained weights are averaged with those of before."""

    model_config = _FROZEN

    form: Literal["none", "sound", "published", "fixed", "ratio"] = Field(
        "sound",
        description="none; sound: the share that loss and stability ask for, once, after the task; published: LCIA's, "
        "after every step; fixed: one decay after every step; ratio: one share, once, after the task",
    )
    groups: int = Field(1, ge=1, description="sound: groups of layers with a share of their own; 1: one for all")
    strength: float = Field(1.0, ge=0, description="sound: μ, how much stability weighs against the new loss")
    tolerance: float = Field(
        0.05, ge=0, description="sound: by how much the new task's loss (nats a token) may rise; less is kept then"
    )
    metric: Literal["isotropic", "fisher"] = Field(
        "isotropic",
        description="sound: what a change costs: all weights alike, or by what kfac keeps of earlier tasks",
    )
    rows: int = Field(16, ge=1, description="sound: rows on which slope and curvature are taken, held-out ones first")
    decay: float = Field(0.99, gt=0, lt=1, description="fixed: the share of the average at every step")
    ratio: float = Field(0.2, ge=0, le=1, description="ratio: the share of the weights of before")


class ReplayConfig(BaseModel):
    """What of earlier tasks is seen again; nothing, unless asked for."""

    model_config = _FROZEN

    share: float = Field(0.0, ge=0, lt=1, description="Share of earlier tasks' rows among those trained on")
    size: int = Field(256, ge=1, description="Rows that are kept in all")
    size_bytes: int | None = Field(None, ge=1, description="Bytes of text that are kept in all, instead of rows")
    choice: Literal["reservoir", "similar"] = Field(
        "reservoir", description="reservoir: all earlier rows alike; similar: those most like the new task first"
    )


class TrainingConfig(BaseModel):
    """Settings of every training, of tasks and of encoders."""

    model_config = _FROZEN

    rank: int = Field(8, ge=1, description="lora: rank of the adapters")
    alpha: int = Field(16, ge=1, description="lora: the change is multiplied by alpha / rank")
    epochs: float = Field(3, gt=0, description="Passes over the rows")
    max_steps: int | None = Field(None, ge=1, description="At most this many steps")
    batch_size: int = Field(
        16, ge=1, description="Rows of a batch, anchors not counted; under torchrun its processes share them"
    )
    accumulation: int = Field(1, ge=1, description="Batches whose gradients make one step")
    learning_rate: float = Field(2e-4, gt=0, description="AdamW's learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="How the learning rate goes on")
    warmup: int | float = Field(
        0, ge=0, description="Steps until the learning rate is reached; below 1 the share of all steps"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm")
    save_every: int = Field(100, ge=1, description="Steps after which the work can be taken up again")
    report_to: tuple[str, ...] = Field((), description="Trackers of transformers, such as tensorboard or wandb")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of adapters, order and dropout")
    regularizers: tuple[dict[str, Any], ...] = Field((), description="What holds the model: kind, weight and settings")
    averaging: AveragingConfig = AveragingConfig(form="none")

    @field_validator("warmup")
    @classmethod
    def _steps(cls, given: int | float) -> int | float:
        if given >= 1 and given != int(given):
            raise ValueError(f"{given} is no number of steps and no share of them")
        return given

    @field_validator("regularizers")
    @classmethod
    def _known(cls, given: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        """Every regularizer exists and its settings are right; defaults are filled in, so that a recipe says all."""
        return tuple(made(each)[1].model_dump(mode="json") for each in given)

    @model_validator(mode="after")
    def _informed(self) -> "TrainingConfig":
        if self.averaging.metric == "fisher" and not any(name == "kfac" for name, _ in self.terms()):
            raise ValueError("metric=fisher weighs by what kfac keeps of earlier tasks; add kfac to the regularizers")
        return self

    def terms(self) -> list[tuple[str, RegularizerConfig]]:
        """Names and settings of the regularizers that have a weight."""
        found = [made(each) for each in self.regularizers]
        return [(name, config) for name, config in found if config.weight]

    @property
    def holds_anchors(self) -> bool:
        """Whether rows that are only there to be held change the penalty of a batch."""
        return any(config.holds_anchors for _, config in self.terms())

    @property
    def reads_anchors(self) -> bool:
        """Whether such rows make a difference at all."""
        return any(config.reads_anchors for _, config in self.terms())

    def beside(self, batch_size: int, anchors: int) -> int:
        """How many anchors stand beside the rows of each batch, whatever there is to learn: one for every eight rows.

        Args:
            batch_size: Rows that a batch of one process learns.
            anchors: Rows that are held, in all.
        """
        return min(anchors, max(1, batch_size // _LEARNT_PER_ANCHOR)) if self.holds_anchors else 0


class TuningConfig(TrainingConfig):
    """Settings of a tuning."""

    kind: Literal["tuning"] = "tuning"
    method: Literal["lora", "full"] = Field(
        "lora", description="Low-rank adapters, or all projection matrices of the blocks"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="lora: dropout before the adapters; the model's own is off")
    targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="Endings of the names of modules that are trained; all projections if not given"
    )
    max_tokens: int = Field(1024, ge=2, description="A longer row is refused")
    patience: int | None = Field(
        None, ge=1, description="Stop after this many epochs without a better validation loss, and keep the best"
    )
    gradient_checkpointing: bool = Field(False, description="Less memory, about a third more time")
    sharding: Literal["none", "fsdp2"] = Field(
        "none", description="Under torchrun: whole copies of the weights, or FSDP2"
    )
    replay: ReplayConfig = ReplayConfig()
    anchors: int = Field(
        0,
        ge=0,
        description="Rows besides the task's that regularizers hold on to, none of them learnt, one beside every eight "
        "rows of a batch; 0 where no regularizer holds any",
    )
    anchor_source: Literal["own", "passages"] = Field(
        "own", description="own: what the model writes freely; passages: the built-in text"
    )

    @field_validator("anchors")
    @classmethod
    def _read(cls, given: int, info: ValidationInfo) -> int:
        """None where regularizers are of the weights alone: nothing is written that nothing reads."""
        terms = [made(each)[1] for each in info.data.get("regularizers", ())]
        return 0 if terms and not any(term.weight and term.reads_anchors for term in terms) else given

    @model_validator(mode="after")
    def _sensible(self) -> "TuningConfig":
        if self.anchors and not self.regularizers:
            raise ValueError("anchors are held by regularizers; give one, or anchors=0")
        if self.sharding != "none" and (self.method != "lora" or self.patience or self._weighs):
            raise ValueError(
                "sharding shards the weights below the adapters and takes no checkpoints: it needs method=lora, "
                "and goes without patience and ewc (take kfac); or leave sharding out"
            )
        return self

    @property
    def _weighs(self) -> bool:
        """Whether a regularizer takes gradients of whole matrices."""
        return any(name == "ewc" for name, _ in self.terms())


def resolved(given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a tuning as JSON, defaults filled in."""
    return TuningConfig.model_validate(given).model_dump(mode="json")

"""LDIFS: the features held near the reference's, not the weights.

Mukhoti et al., "Fine-tuning can cripple your foundation model; preserving features may be the solution", TMLR 2024.
Shape suffixes: B rows, T tokens, N tokens of a batch, L layers, D hidden size.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from perdure.errors import SettingError
from perdure.models import layout_of
from perdure.registry import regularizers
from perdure.tuning.encoding import Collated
from perdure.tuning.forward import Seen, Taps, forward
from perdure.tuning.reading import read_all
from perdure.tuning.regularizer import Reference, RegularizerConfig, Run, State, cache_file
from perdure.tuning.stores import stored

_SAMPLE = 32  # rows on which dimensions are looked at
_MASSIVE = 0.5  # of a feature's mean square in one dimension: above, directions say little of the others


class FeatureDistanceConfig(RegularizerConfig):
    """Settings of the distance in feature space."""

    kind: Literal["feature_distance"] = "feature_distance"
    weight: float = Field(1.0, ge=0, description="λ of the paper")
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Blocks whose outputs are held; five, evenly spaced, when not given"
    )
    reference: Reference = Field("previous", description="The model before this task, or the one before all")
    cached: bool = Field(True, description="Read the reference once and keep its features; else at every step")


@regularizers.register("feature_distance", config=FeatureDistanceConfig, paper="Mukhoti et al., TMLR 2024, 2308.13320")
class FeatureDistance:
    """Holds hidden states near the reference's: mean over tokens and layers of ‖h/‖h‖ − h₀/‖h₀‖‖² (LDIFS)."""

    def __init__(self, config: FeatureDistanceConfig) -> None:
        self._config = config

    def taps(self, model: Any) -> Taps:
        """The outputs of the chosen blocks; all are before the final norm."""
        blocks = layout_of(model).blocks
        return {f"block {layer}": (blocks[layer], "output") for layer in self._layers(len(blocks))}

    def prepare(self, run: Run) -> None:
        """Read the reference's features, once; the scale of each dimension where single ones are massive.

        Raises:
            SettingError: A live reference was asked for and there is none at hand.
        """
        taps = self.taps(run.model)
        self._names, self._run = list(taps), run
        first = 1 if _has_start(run) else 0
        self._places = [range(first, len(row.ids)) for row in run.rows]
        if not self._config.cached:
            self._standardise(run.model, run)
            if self._config.reference == "original" or not hasattr(run.model, "disable_adapter"):
                raise SettingError("cached=false needs method=lora and reference=previous: the model, adapters off")
            return
        settings = {"kind": "features", "layers": self._names, "first": first}
        with run.reference(self._config.reference) as model:
            self._standardise(model, run)
            width = layout_of(model).d_model
            reading = read_all(model, run.rows, self.taps(model), tokens=run.batch_tokens, progress=run.around.progress)
            self._store = stored(
                [len(places) for places in self._places],
                (len(taps), width),
                torch.float16,
                lambda: self._filled(reading),
                path=_with_npy(cache_file(run, self._config.reference, settings)),
            )

    def penalty(self, seen: Seen) -> Tensor:
        """Mean over the batch's tokens and the layers; about 2 for unrelated features, whatever their number."""
        now_NLD = self._features(seen)
        return feature_distance(now_NLD, self._reference(seen.batch, now_NLD))

    def after_task(self, _run: Run) -> State:
        """Nothing."""
        return {}

    def _layers(self, depth: int) -> Sequence[int]:
        if self._config.layers is None:
            count = min(5, depth)
            return sorted({round((place + 1) * depth / count) - 1 for place in range(count)})
        wrong = [layer for layer in self._config.layers if not 0 <= layer < depth]
        if wrong:
            raise SettingError(f"layers: {wrong[0]} is none of this model's; it has 0 to {depth - 1}")
        return sorted(set(self._config.layers))

    def _features(self, seen: Seen) -> Tensor:
        """Unit features [N, L, D] of the held tokens of a batch, row after row."""
        return unit((self._raw(seen) - self._shift_LD) * self._factor_LD)

    def _raw(self, seen: Seen) -> Tensor:
        at_BT = self._held(seen.batch)
        return torch.stack([seen.taps[name][at_BT] for name in self._names], 1).float()

    def _standardise(self, model: Any, run: Run) -> None:
        """The mean and scale of each dimension, in layers where a single one is massive; 0 and 1 elsewhere."""
        step = max(1, len(run.rows) // _SAMPLE)
        numbers = range(0, len(run.rows), step)
        rows, places = [run.rows[number] for number in numbers], self._places
        self._places = [places[number] for number in numbers]
        raw_NLD = torch.cat([self._raw(seen) for seen in read_all(model, rows, self.taps(model))])
        self._places = places
        self._shift_LD, self._factor_LD = standardisation(raw_NLD)

    def _held(self, batch: Collated) -> Tensor:
        """The tokens that are held: all but padding and a start token, which every text shares."""
        mask_BT = batch.mask
        starts_B = mask_BT.int().argmax(1)
        held_BT = mask_BT.clone()
        for row, number in enumerate(batch.numbers):
            held_BT[row, starts_B[row] : starts_B[row] + self._places[number].start] = False
        return held_BT

    def _filled(self, reading: Iterable[Seen]) -> Iterable[tuple[int, Tensor]]:
        for seen in reading:
            sizes = [len(self._places[number]) for number in seen.batch.numbers]
            yield from zip(seen.batch.numbers, torch.split(self._features(seen), sizes), strict=True)

    def _reference(self, batch: Collated, like_NLD: Tensor) -> Tensor:
        if self._config.cached:
            return self._store.rows(batch.numbers).to(like_NLD)
        model = self._run.model
        with torch.no_grad(), model.disable_adapter():
            return self._features(forward(model, batch, self.taps(model)))


def unit(features_NLD: Tensor) -> Tensor:
    """Features on the unit sphere, float32: along the channels, so that a token's scale does not count.

    The published code divides along the token axis, so that unrelated features score about 2 / T.
    """
    return torch.nn.functional.normalize(features_NLD.float(), dim=-1)


def feature_distance(now_NLD: Tensor, reference_NLD: Tensor) -> Tensor:
    """Mean over tokens N and layers L of the squared distance of unit features: 0 for equal, 2 for unrelated ones.

    Mukhoti et al., equation 4, in the sound form (see `unit`). Both sides are of length one or of length zero.
    """
    return (now_NLD - reference_NLD).square().sum(-1).mean()


def standardisation(features_NLD: Tensor) -> tuple[Tensor, Tensor]:
    """What to take off and multiply by, [L, D]: standard scores where one dimension holds most of a layer's energy.

    A few dimensions of language models are larger than all others together (Sun et al., "Massive Activations in
    Large Language Models", 2024); unit features would be of them alone.
    """
    square_LD = features_NLD.square().mean(0)
    massive_L1 = square_LD.max(1, keepdim=True).values > _MASSIVE * square_LD.sum(1, keepdim=True)
    mean_LD = features_NLD.mean(0)
    deviation_LD = (square_LD - mean_LD.square()).clamp(min=0).sqrt()
    floor_L1 = deviation_LD.mean(1, keepdim=True) * 1e-3
    factor_LD = 1 / deviation_LD.maximum(floor_L1.clamp(min=1e-12))
    ones_LD = torch.ones_like(factor_LD)
    return torch.where(massive_L1, mean_LD, 0 * mean_LD), torch.where(massive_L1, factor_LD, ones_LD)


def _has_start(run: Run) -> bool:
    """Whether the rows all start with the tokenizer's start token."""
    start = getattr(run.tokenizer, "bos_token_id", None)
    return start is not None and all(row.ids[0] == start for row in run.rows)


def _with_npy(path: Any) -> Any:
    return None if path is None else path.with_suffix(".npy")

"""LDIFS: the features held near the reference's, not the weights.

Mukhoti et al., "Fine-tuning can cripple your foundation model; preserving features may be the solution", TMLR 2024.
Shape suffixes: B rows, T tokens, N tokens of a batch, L layers, D hidden size; layers may differ in T, N and D.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from perdure.errors import SettingError
from perdure.registry import regularizers
from perdure.tuning.forward import Seen, Taps
from perdure.tuning.held_tokens import HeldTokens
from perdure.tuning.regularizer import Reference, RegularizerConfig, Run, State, cache_file
from perdure.tuning.stages import stages_of
from perdure.tuning.stores import stored

_SAMPLE = 32  # rows on which dimensions are looked at
_MASSIVE = 0.5  # of a feature's mean square in one dimension: above, directions say little of the others


class FeatureDistanceConfig(RegularizerConfig):
    """Settings of the distance in feature space."""

    kind: Literal["feature_distance"] = "feature_distance"
    weight: float = Field(1.0, ge=0, description="λ of the paper")
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Blocks or stages whose outputs are held; five, evenly spaced, when not given"
    )
    tokens: int | None = Field(
        None, ge=1, description="At most this many tokens or places of a row are held in each layer; all if not given"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed by which they are drawn, the same in every epoch")
    form: Literal["sound", "published"] = Field(
        "sound", description="sound: unit features of each token; published: divided along the tokens, for comparison"
    )
    reference: Reference = Field("previous", description="The model before this task, or the one before all")
    cached: bool = Field(True, description="Read the reference once and keep its features; else at every step")

    @property
    def holds_anchors(self) -> bool:
        """Always."""
        return True


@regularizers.register("feature_distance", config=FeatureDistanceConfig, paper="Mukhoti et al., TMLR 2024, 2308.13320")
class FeatureDistance:
    """Holds hidden states near the reference's: mean over tokens and layers of ‖h/‖h‖ − h₀/‖h₀‖‖² (LDIFS)."""

    def __init__(self, config: FeatureDistanceConfig) -> None:
        self._config = config

    def taps(self, model: Any) -> Taps:
        """The outputs of the chosen blocks or stages; a decoder's are all before the final norm."""
        stages = stages_of(model)
        names = list(stages)
        return {names[layer]: stages[names[layer]] for layer in self._layers(len(names))}

    def prepare(self, run: Run) -> None:
        """Read the reference's features, once; the scale of each dimension where single ones are massive.

        Raises:
            SettingError: A live reference was asked for and there is none at hand.
        """
        self._run, self._names = run, list(self.taps(run.model))
        self._held = HeldTokens(run, self._config.tokens, self._config.seed)
        if not self._config.cached:
            if self._config.reference == "original" or run.untouched() is None:
                raise SettingError("cached=false needs method=lora and reference=previous: the model, adapters off")
            self._look(run.model)
            return
        settings = self._config.model_dump(mode="json", include={"tokens", "seed", "form"})
        settings |= {"kind": "features", "layers": self._names, "first": run.first}
        path = cache_file(run, self._config.reference, settings)
        with run.reference(self._config.reference) as model:
            self._look(model)
            self._store = stored(
                [sum(rows * width for rows, width in self._shapes(number)) for number in range(len(run.anchors))],
                (),
                torch.float16,
                lambda: self._filled(model),
                path=None if path is None else path.with_suffix(".npy"),
            )

    def penalty(self, seen: Seen) -> Tensor:
        """Mean over the batch's tokens and the layers; about 2 for unrelated features, whatever their number."""
        now = self._features(seen)
        before = self._stored(seen, [now_ND for now_ND, _ in now]) if self._config.cached else self._live(seen)
        published = self._config.form == "published"
        parts = []
        for (now_ND, rows_N), before_ND in zip(now, before, strict=True):
            distance = feature_distance(now_ND, before_ND, self._weights(seen, rows_N))
            parts.append(distance / now_ND.shape[-1] if published else distance)
        return torch.stack(parts).mean()

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

    def _features(self, seen: Seen) -> list[tuple[Tensor, Tensor]]:
        """Of each layer the features [N, D] of the held tokens, divided as the form says, and the row of each [N]."""
        found = []
        for name, raw_ND, rows_N in self._raw(seen):
            if self._config.form == "published":
                found.append((along_tokens(raw_ND, rows_N, len(seen.batch.rows_B)), rows_N))
            else:
                shift_D, factor_D = self._scales[name]
                found.append((unit((raw_ND - shift_D) * factor_D), rows_N))
        return found

    def _raw(self, seen: Seen) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Of each layer its name, the features [N, D] of the held tokens in float32, and the row of each."""
        places: dict[int, tuple[Tensor, Tensor]] = {}
        for name in self._names:
            tapped_BTD = seen.taps[name]
            size = tapped_BTD.shape[1]
            if size not in places:
                places[size] = self._held.places(seen.batch, size)
            rows_N, columns_N = places[size]
            yield name, tapped_BTD[rows_N, columns_N].float(), rows_N

    def _look(self, model: Any) -> None:
        """The sizes of the layers; the mean and scale of each dimension where a single one is massive, else 0 and 1."""
        self._sizes = self._sizes_in(model)
        step = max(1, len(self._run.anchors) // _SAMPLE)
        raw: dict[str, list[Tensor]] = {name: [] for name in self._names}
        for seen in self._run.read(model, self.taps(model), range(0, len(self._run.anchors), step)):
            for name, raw_ND, _ in self._raw(seen):
                raw[name].append(raw_ND)
        if self._config.form == "published":  # divided along a single token, a feature is its sign
            self._names = [name for name in self._names if self._sizes[name][0] > 1]
        self._scales = {}
        for name in self._names:
            shift_LD, factor_LD = standardisation(torch.cat(raw[name])[:, None])
            self._scales[name] = (shift_LD[0], factor_LD[0])

    def _sizes_in(self, model: Any) -> dict[str, tuple[int, int]]:
        """Of each layer how many tokens it shows of the longest row, and their width.

        In the longest row alone a layer of a single place differs from one of tokens wherever any row has several.
        """
        longest = max(range(len(self._run.anchors)), key=lambda number: self._run.tokens(number, 2))
        (seen,) = self._run.read(model, self.taps(model), [longest])
        return {name: (seen.taps[name].shape[1], seen.taps[name].shape[2]) for name in self._names}

    def _shapes(self, number: int) -> list[tuple[int, int]]:
        """How many features of which width are kept of a row, layer by layer."""
        sizes = (self._sizes[name] for name in self._names)
        return [(len(self._held.of(number, size)), width) for size, width in sizes]

    def _filled(self, model: Any) -> Iterable[tuple[int, Tensor]]:
        """Each row's features of all layers, one after the other, as one vector."""
        for seen in self._run.read(model, self.taps(model)):
            numbers = seen.batch.numbers
            shapes = [self._shapes(number) for number in numbers]
            layers = [
                torch.split(features_ND.cpu(), [shape[layer][0] for shape in shapes])
                for layer, (features_ND, _) in enumerate(self._features(seen))
            ]
            for number, *parts in zip(numbers, *layers, strict=True):
                yield number, torch.cat([part.flatten() for part in parts])

    def _stored(self, seen: Seen, like: Sequence[Tensor]) -> list[Tensor]:
        rows = []
        for number in seen.batch.numbers:
            shapes = self._shapes(number)
            rows.append(torch.split(self._store.row(number), [count * width for count, width in shapes]))
        layers = zip(like, zip(*rows, strict=True), strict=True)
        return [torch.cat(parts).view(now_ND.shape).to(now_ND) for now_ND, parts in layers]

    def _live(self, seen: Seen) -> list[Tensor]:
        run, untouched = self._run, self._run.untouched()
        assert untouched is not None
        with torch.no_grad(), untouched:
            found = self._features(run.forward(run.model, seen.batch, self.taps(run.model)))
        return [features_ND for features_ND, _ in found]

    def _weights(self, seen: Seen, rows_N: Tensor) -> Tensor | None:
        """How much each held token counts; nothing where all count alike."""
        weights = self._run.weights
        if weights is None:
            return None
        return torch.tensor([weights[number] for number in seen.batch.numbers], device=rows_N.device)[rows_N]


def unit(features_ND: Tensor) -> Tensor:
    """Features on the unit sphere, float32: along the channels, so that a token's scale does not count.

    The published code divides along the token axis: see `along_tokens`.
    """
    return torch.nn.functional.normalize(features_ND.float(), dim=-1)


def along_tokens(features_ND: Tensor, rows_N: Tensor, rows: int) -> Tensor:
    """Features divided, channel by channel, by their length over the tokens of their row, as the published code does.

    The mean square of the difference, over tokens and channels, is then about 2 / T for unrelated features: what a
    weight means depends on how many tokens a row has.

    Args:
        features_ND: Features of the tokens of several rows.
        rows_N: The row of each token.
        rows: How many rows there are.
    """
    squares_BD = features_ND.new_zeros(rows, features_ND.shape[1]).index_add(0, rows_N, features_ND.square())
    return features_ND / squares_BD.sqrt().clamp(min=1e-12)[rows_N]


def feature_distance(now_NLD: Tensor, reference_NLD: Tensor, weight_N: Tensor | None = None) -> Tensor:
    """Mean over tokens N (and layers L) of the squared distance of unit features: 0 for equal, 2 for unrelated ones.

    Mukhoti et al., equation 4, in the sound form (see `unit`). Both sides are of length one or of length zero.

    Args:
        now_NLD: Unit features, [N, L, D] or [N, D].
        reference_NLD: Those of the reference.
        weight_N: What each token's distance is multiplied by.
    """
    distance_NL = (now_NLD - reference_NLD).square().sum(-1)
    return distance_NL.mean() if weight_N is None else (distance_NL.movedim(0, -1) * weight_N).mean()


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

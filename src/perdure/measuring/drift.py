"""Feature drift: how far a model's hidden states on held-out passages are from another model's.

Shape suffixes: B rows, T tokens, N tokens, L layers, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from perdure.errors import ModelError
from perdure.measuring.continual import FeatureDrift
from perdure.measuring.statistics import mean_of
from perdure.measuring.suites import Suite
from perdure.models.tokens import encode
from perdure.progress import Progress, silent
from perdure.tuning.encoding import Row
from perdure.tuning.reading import read_all
from perdure.tuning.regularizers.feature_distance import (
    FeatureDistance,
    FeatureDistanceConfig,
    feature_distance,
    standardisation,
    unit,
)

_UNRELATED = 4.0  # the largest squared distance of two unit vectors


class Features:
    """The hidden states of one model on the passages of a suite.

    Attributes:
        blocks: The blocks whose outputs were read: five, evenly spaced.
        passages: Of each passage [N, L, D], float32, without its first token: most models dump what they have no use
            for there, whatever the text.
    """

    def __init__(self, blocks: Sequence[int], passages: Sequence[Tensor]) -> None:
        self.blocks, self.passages = tuple(blocks), list(passages)


def read_features(model: Any, tokenizer: Any, suite: Suite, progress: Progress = silent) -> Features:
    """What a model's blocks give for each held-out passage; no logits but one a passage."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    texts = [encode(tokenizer, passage.text)[:limit] for passage in suite.passages]
    rows = [_row(ids) for ids in texts if len(ids) > 1]
    taps = FeatureDistance(FeatureDistanceConfig()).taps(model)
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for seen in read_all(model, rows, taps, progress=progress, stage="hidden states of held-out text"):
        raw_BTLD = torch.stack([seen.taps[name] for name in taps], 2)
        mask_BT = seen.batch.mask_of(raw_BTLD.shape[1])
        for at, number in enumerate(seen.batch.numbers):
            found[number] = raw_BTLD[at][mask_BT[at]][1:].float().cpu()
    return Features([int(name.split()[-1]) for name in taps], found)


def drift_of(reference: Features, now: Features) -> FeatureDrift:
    """How far `now` is from the reference, as the regularizer feature_distance measures it; interval over passages.

    Raises:
        ModelError: The two read other tokens, or have other blocks or sizes.
    """
    shapes = [[tuple(passage.shape) for passage in side.passages] for side in (reference, now)]
    if reference.blocks != now.blocks or shapes[0] != shapes[1]:
        raise ModelError("hidden states of models with other blocks, sizes or tokenizers do not compare")
    shift_LD, factor_LD = standardisation(torch.cat(reference.passages))
    by_passage = []
    for old_NLD, new_NLD in zip(reference.passages, now.passages, strict=True):
        pair = [unit((side - shift_LD) * factor_LD) for side in (new_NLD, old_NLD)]
        by_passage.append(
            [float(feature_distance(pair[0][:, [layer]], pair[1][:, [layer]])) for layer in range(len(now.blocks))]
        )
    return FeatureDrift(
        mean=mean_of([sum(values) / len(values) for values in by_passage], most=_UNRELATED),
        blocks=now.blocks,
        by_block=tuple(sum(values) / len(values) for values in zip(*by_passage, strict=True)),
    )


def _row(ids: Sequence[int]) -> Row:
    """A passage of which only the last token is predicted."""
    return Row(tuple(ids), tuple(place == len(ids) - 1 for place in range(len(ids))), len(ids) - 2, anchor=True)

"""Features of an encoder, read once: in half precision on disk, found again by the content of encoder and items.

What is kept is rounded to half precision whether it is kept on disk or in memory, so that a kept feature and a fresh
one are equal. Shape suffixes: N items, M sampled items, B items of a batch, T tokens or places of a map, K places
drawn of them, D feature size.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perdure.content import atomic_path, digest_json
from perdure.errors import ModelError
from perdure.models.encoders import Encoder, SeenEncoder, Side
from perdure.progress import Progress, counting, silent
from perdure.tuning.reading import evaluating

Half = NDArray[np.float16]
BATCH = 32
THREADS = 4
"""Threads that prepare images."""
STAGES = 5
_LARGEST = 65504.0  # of half precision
_FORMAT = 1
_Batch = tuple[tuple[int, ...], SeenEncoder]  # the numbers of its items, and what was seen of them


class Reading:
    """Reads items through one encoder.

    Attributes:
        encoder: What reads them.
        folder: Where features are kept; in memory when None.
        batch: Items of one forward pass; changes no feature.
    """

    def __init__(
        self, encoder: Encoder, folder: Path | None = None, *, batch: int = BATCH, progress: Progress = silent
    ) -> None:
        self.encoder, self.folder, self.batch = encoder, folder, batch
        self._progress = progress

    def pooled(self, side: Side, items: Sequence[Any], content: str) -> Half:
        """What a linear probe reads of each item, [N, D]; in place on disk where there is a folder.

        Args:
            side: "image" or "text".
            items: The images or texts; not read where their features are kept already.
            content: What tells these items, in this order, from all others.

        Raises:
            ModelError: A feature is not finite.
        """
        path = self._path("pooled", side, content)
        if path is None or not path.is_file():
            made = self._write_pooled(side, items, path)
            if path is None:
                return made
        return _opened(path)

    def staged(self, side: Side, items: Sequence[Any], content: str, *, places: int, seed: int) -> dict[str, Half]:
        """Features [M, K, D] of five stages, evenly spaced in depth, by the stage's name.

        Of each item `places` tokens or places of the map are drawn, the same for every encoder that reads the item
        alike; of a text not the first token, on which language models dump what they have no use for.

        Raises:
            ModelError: A feature is not finite.
        """
        names = spaced(list(self.encoder.stages(side)))
        path = self._path("stages", side, content, names, places, seed)
        if path is not None and path.is_file():
            return _read_stages(path, names)
        found: dict[str, list[Any]] = {name: [None] * len(items) for name in names}
        for numbers, seen in self._reading(side, items, names):
            for name in names:
                for number, rows_TD in zip(numbers, _unpadded(seen.stages[name], seen.mask_BT), strict=True):
                    drawn = _drawn(len(rows_TD), places, (seed, number), spare_first=side == "text")
                    found[name][number] = _half(rows_TD[drawn])
        stacked = {name: np.stack(rows) for name, rows in found.items()}
        if path is not None:
            _write_stages(path, stacked)
        return stacked

    def class_weights(self, classes: Sequence[str], prompts: Sequence[str]) -> NDArray[np.float32]:
        """The weights [C, D] of a zero-shot classifier: the embeddings of each class's name within the prompts."""
        path = self._path("classes", list(classes), list(prompts))
        if path is not None and path.is_file():
            return np.asarray(_opened(path), np.float32)
        with evaluating(self.encoder.model):
            made: NDArray[np.float32] = self.encoder.class_weights(classes, prompts).float().cpu().numpy()
        if path is not None:
            with atomic_path(path) as scratch, scratch.open("wb") as stream:
                np.save(stream, made, allow_pickle=False)
        return made

    def _write_pooled(self, side: Side, items: Sequence[Any], path: Path | None) -> Half:
        reading = self._reading(side, items, ())
        first = next(reading)
        batches, size = chain([first], reading), (len(items), first[1].pooled_BD.shape[1])
        if path is None:
            return _filled(np.empty(size, np.float16), batches)
        with atomic_path(path) as scratch:
            kept = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float16, shape=size)
            _filled(kept, batches)
            kept.flush()
        return kept

    def _reading(self, side: Side, items: Sequence[Any], stages: Sequence[str]) -> Iterator[_Batch]:
        """The numbers of the items of each batch, texts of like length together, and what was seen of them.

        The next batches are prepared while the encoder reads one; texts by one thread, since tokenizers are not shared.
        """
        order = sorted(range(len(items)), key=lambda at: len(items[at])) if side == "text" else range(len(items))
        batches = [tuple(order[start : start + self.batch]) for start in range(0, len(items), self.batch)]
        done = counting(self._progress, f"features of {side}s", len(items))

        def prepare(numbers: tuple[int, ...]) -> Mapping[str, Tensor]:
            return self.encoder.prepared(side, [items[number] for number in numbers])

        threads = 1 if side == "text" else THREADS
        with ThreadPoolExecutor(threads) as ahead, evaluating(self.encoder.model):
            waiting = deque(ahead.submit(prepare, numbers) for numbers in batches[: threads + 1])
            for place, numbers in enumerate(batches):
                inputs = waiting.popleft().result()
                if place + threads + 1 < len(batches):
                    waiting.append(ahead.submit(prepare, batches[place + threads + 1]))
                yield numbers, self.encoder.seen(side, inputs, stages)
                done(len(numbers))

    def _path(self, *key: Any) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{digest_json([_FORMAT, *self._read_by, *key])}.{'npz' if key[0] == 'stages' else 'npy'}"

    @cached_property
    def _read_by(self) -> tuple[str, str]:
        """Hashing all weights takes a while: once."""
        return self.encoder.digest, str(self.encoder.model.dtype)


def spaced(names: Sequence[str], count: int = STAGES) -> list[str]:
    """At most `count` names, evenly spaced, the last among them."""
    count = min(count, len(names))
    return [names[round((place + 1) * len(names) / count) - 1] for place in range(count)]


def _filled(kept: Half, batches: Iterable[_Batch]) -> Half:
    for numbers, seen in batches:
        kept[list(numbers)] = _half(seen.pooled_BD)
    return kept


def _half(features: Tensor) -> Half:
    """Features in half precision; what is too large for it becomes its largest number.

    Raises:
        ModelError: One is not finite.
    """
    given = features.detach().float().cpu()
    if not bool(torch.isfinite(given).all()):
        raise ModelError("the encoder gives features that are not finite; its weights or the items are broken")
    found: Half = given.clamp(-_LARGEST, _LARGEST).to(torch.float16).numpy()
    return found


def _unpadded(features: Tensor, mask_BT: Tensor | None) -> list[Tensor]:
    """Of each item its features [T, D], without padding; one place where a stage has no places."""
    if features.ndim == 2:
        return list(features[:, None])
    if mask_BT is None or mask_BT.shape[1] != features.shape[1]:
        return list(features)
    return [row_TD[mask_T.bool()] for row_TD, mask_T in zip(features, mask_BT, strict=True)]


def _drawn(length: int, count: int, seed: Sequence[int], *, spare_first: bool) -> Tensor:
    """Which `count` of `length` places are kept; where there are fewer, all of them in turn."""
    first = 1 if spare_first and length > 1 else 0
    order = np.random.default_rng(seed).permutation(np.arange(first, length))
    return torch.from_numpy(np.sort(np.resize(order, count)))


def _opened(path: Path) -> Half:
    found: Half = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def _write_stages(path: Path, stacked: Mapping[str, Half]) -> None:
    with atomic_path(path) as scratch, scratch.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **{f"stage{place}": rows for place, rows in enumerate(stacked.values())})


def _read_stages(path: Path, names: Sequence[str]) -> dict[str, Half]:
    with np.load(path, allow_pickle=False) as kept:
        return {name: kept[f"stage{place}"] for place, name in enumerate(names)}

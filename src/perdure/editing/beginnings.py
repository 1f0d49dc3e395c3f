"""Beginnings that many rows share, read once: an edit puts the same few sentences before every prompt.

Shape suffixes: C beginnings, B rows, T tokens, P tokens of a beginning, H heads, E head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from perdure.models import Layout, capture
from perdure.models.caching import KeysValues, cache_of, keys_values
from perdure.models.tokens import pad

if TYPE_CHECKING:
    from perdure.editing.subjects import SubjectRow


@dataclass(frozen=True)
class Rest:
    """Rows without what they share with others, aligned at the subject's last token.

    Attributes:
        ids_BT: Tokens after the beginning; the subject's last token is in the same column of every row.
        mask_BT: 1 where a token is, over the P columns of the beginnings and then those of `ids_BT`.
        positions_BT: Positions in the whole row.
        column: The column of the subject's last token.
        past: Keys and values of the beginnings.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    positions_BT: Tensor
    column: int
    past: KeysValues

    def inputs(self, model: Any) -> dict[str, Any]:
        """The keyword arguments of a forward pass, with a cache of its own."""
        return {
            "input_ids": self.ids_BT,
            "attention_mask": self.mask_BT,
            "position_ids": self.positions_BT,
            "past_key_values": cache_of(model, self.past),
            "use_cache": True,
        }


@dataclass(frozen=True)
class Beginnings:
    """What the rows of each group begin with.

    Attributes:
        lengths: From group to the number of tokens its rows share.
        past: Keys and values [C, H, P, E] of each group's beginning, padded on the left; group by group.
        places: From group to its place among the C.
    """

    lengths: dict[int, int]
    past: KeysValues
    places: dict[int, int]

    def rest(self, rows: Sequence["SubjectRow"], inputs: Sequence[Sequence[int]], device: Any) -> Rest:
        """The rows as a batch of what comes after their beginnings.

        Args:
            rows: The rows.
            inputs: The tokens of each that are read.
            device: Where the batch lies.
        """
        shared = [self.lengths.get(row.group, 0) for row in rows]
        column = max(row.at - length for row, length in zip(rows, shared, strict=True))
        after = max(len(ids) - row.at for row, ids in zip(rows, inputs, strict=True))
        width = self.past[0][0].shape[2] if self.past else 0
        ids_BT = torch.zeros(len(rows), column + after, dtype=torch.long)
        mask_BT = torch.zeros(len(rows), width + column + after, dtype=torch.long)
        for index, (row, ids, length) in enumerate(zip(rows, inputs, shared, strict=True)):
            start = column - (row.at - length)
            ids_BT[index, start : start + len(ids) - length] = torch.tensor(ids[length:], dtype=torch.long)
            mask_BT[index, width + start : width + start + len(ids) - length] = 1
            mask_BT[index, width - length : width] = 1
        positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)[:, width:]
        places_B = torch.tensor([self.places.get(row.group, 0) for row in rows], device=device)
        past = tuple((key[places_B], value[places_B]) for key, value in self.past)
        return Rest(ids_BT.to(device), mask_BT.to(device), positions_BT.to(device), column, past)


def read_beginnings(model: Any, layout: Layout, rows: Sequence["SubjectRow"], *, last: int | None = None) -> Beginnings:
    """The beginnings of the rows of each group, read in one pass.

    Args:
        model: The model, with whatever edits it carries now.
        layout: Its layout.
        rows: All rows; those of one group begin alike.
        last: The last block whose keys and values are needed; all when not given.
    """
    groups: dict[int, list[SubjectRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    lengths = {group: _shared(members) for group, members in groups.items() if len(members) > 1}
    lengths = {group: length for group, length in lengths.items() if length}
    if not lengths:
        return Beginnings({}, (), {})
    batch = pad([groups[group][0].ids[:length] for group, length in lengths.items()], left=True, device=model.device)
    cache = cache_of(model, ())
    block = layout.blocks[-1 if last is None else last]
    with torch.no_grad():
        capture(
            lambda: model.base_model(**batch.inputs(), past_key_values=cache, use_cache=True), outputs={"block": block}
        )
    return Beginnings(lengths, keys_values(cache), {group: place for place, group in enumerate(lengths)})


def _shared(rows: Sequence["SubjectRow"]) -> int:
    """How many tokens the rows begin with in common, short of the first subject's last token."""
    limit = min(row.at for row in rows)
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*(row.ids[:limit] for row in rows), strict=True))
    return sum(1 for _ in alike)

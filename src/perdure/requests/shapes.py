"""Shapes of rows that are read as they are: perdure's own and those of the common data sets.

A shape is recognised by the keys that a row has. A new shape is one function and one line in `SHAPES`,
before `own`, which takes every row that is left.
"""

from collections.abc import Callable

from perdure.requests.cases import CASE_KEYS, MQUAKE_KEYS, read_case, read_mquake, share_case, share_mquake
from perdure.requests.drafts import Draft, Raw, Shape, first, listed, pick
from perdure.requests.rewrites import read_rewrite
from perdure.requests.spellings import SPELLINGS, read_own

_EASYEDIT = {
    "subject": ("subject",),
    "prompt": ("prompt",),
    "target_new": ("target_new", "target"),
    "target_true": ("ground_truth",),
    "paraphrases": ("rephrase_prompt", "rephrase"),
    "neighbours": ("locality",),
    "portability": ("portability",),
}


def _easyedit(row: Raw) -> list[Draft]:
    draft = pick(row, _EASYEDIT)
    values = draft.values
    values["target_true"] = first(values.get("target_true"))
    values["paraphrases"] = listed(values.get("paraphrases"))
    for key, spelling in SPELLINGS.items():
        values[key] = spelling.listed(values.get(key), draft.names[key])
    return [draft]


def _counterfact_flat(row: Raw) -> list[Draft]:
    """As EasyEdit, with questions in keys of their own: `locality_prompt`, `locality_ground_truth`."""
    (draft,) = _easyedit({key: row[key] for key in row if key not in ("locality", "portability")})
    for own, key in (("neighbours", "locality"), ("portability", "portability")):
        where, spelling = f"{key}_prompt", SPELLINGS[own]
        pair = {"prompt": row.get(where), "ground_truth": row.get(f"{key}_ground_truth")}
        draft.values[own] = [*spelling.listed(row.get(key), key), *spelling.listed(pair, where)]
        draft.names[own] = where
    return [draft]


def _counterfact(row: Raw) -> list[Draft]:
    draft = read_rewrite(row["requested_rewrite"], "requested_rewrite")
    draft.names.update(paraphrases="paraphrase_prompts", neighbours="neighborhood_prompts")
    draft.values["paraphrases"] = listed(row.get("paraphrase_prompts"))
    near = listed(row.get("neighborhood_prompts"))
    # These prompts were collected because the true object is their answer too.
    answer = draft.values.get("target_true")
    draft.values["neighbours"] = (
        [{"prompt": prompt, "answer": answer} for prompt in near] if isinstance(near, list) else near
    )
    return [draft]


def _has(*keys: str) -> Callable[[Raw], bool]:
    return lambda row: any(key in row for key in keys)


def _lists(key: str) -> Callable[[Raw], bool]:
    return lambda row: isinstance(row.get(key), list)


_EASYEDIT_KEYS = frozenset(key for keys in _EASYEDIT.values() for key in keys)
_FLAT_KEYS = ("locality_prompt", "locality_ground_truth", "portability_prompt", "portability_ground_truth")

SHAPES: tuple[Shape, ...] = (
    Shape("MQuAKE", _lists("requested_rewrite"), read_mquake, frozenset(MQUAKE_KEYS), share_mquake),
    Shape(
        "CounterFact",
        _has("requested_rewrite"),
        _counterfact,
        frozenset({"requested_rewrite", "paraphrase_prompts", "neighborhood_prompts"}),
    ),
    Shape("flat CounterFact", _has(*_FLAT_KEYS), _counterfact_flat, _EASYEDIT_KEYS | frozenset(_FLAT_KEYS)),
    Shape(
        "EasyEdit (ZsRE, KnowEdit, QAEdit)",
        _has("ground_truth", "rephrase_prompt", "rephrase", "locality", "target", "cond"),
        _easyedit,
        _EASYEDIT_KEYS,
    ),
    Shape("case", _lists(CASE_KEYS[0]), read_case, shared=share_case),
    Shape("own", lambda row: True, read_own),
)


def shape_of(row: Raw) -> Shape:
    """The first shape that fits `row`."""
    return next(shape for shape in SHAPES if shape.fits(row))

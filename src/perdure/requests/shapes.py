"""Shapes of rows that are read as they are: perdure's own and those of the common data sets.

A shape is recognised by the keys that a row has. Its function renames and unpacks; it judges nothing:
what it does not understand it passes on, and the schema of `Fact` refuses it. A new shape is one function
and one line in `SHAPES`, before `own`, which takes every row that is left.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from perdure.requests.facts import Fact

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Draft:
    """A fact before it is checked.

    Attributes:
        values: By the field names of `Fact`.
        names: For those fields, what the file calls them.
    """

    values: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)


class MisshapenError(ValueError):
    """A part of a row that its shape cannot unpack."""

    def __init__(self, where: str, value: object, reason: str) -> None:
        super().__init__(reason)
        self.where, self.value = where, value


@dataclass(frozen=True)
class Shape:
    """One way to write a fact down.

    Attributes:
        name: For messages.
        fits: Whether a row is of this shape.
        read: The drafts that a row holds.
        reads: The keys that it looks at; empty for the own shape, whose schema says so itself.
    """

    name: str
    fits: Callable[[Raw], bool]
    read: Callable[[Raw], list[Draft]]
    reads: frozenset[str] = frozenset()

    def ignored(self, row: Raw) -> list[str]:
        """Keys of `row` that perdure knows in its own shape and that this one would silently drop."""
        return [key for key in row if key in _OWN and key not in self.reads] if self.reads else []


_OWN = frozenset(Fact.model_fields) - {"source"}


def _pick(row: Raw, aliases: Mapping[str, tuple[str, ...]], prefix: str = "") -> Draft:
    """A draft that takes each field from the first of its aliases that `row` has."""
    chosen = {own: next((key for key in keys if key in row), keys[0]) for own, keys in aliases.items()}
    values = {own: row[key] for own, key in chosen.items() if key in row}
    return Draft(values, {own: prefix + key for own, key in chosen.items()})


def _listed(value: Any) -> Any:
    """One text as a list of one, null as an empty list, anything else as it is."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _first(value: Any) -> Any:
    """The first of a list, or of its first list; null for an empty one."""
    for _ in range(2):
        if isinstance(value, list | tuple):
            value = value[0] if value else None
    return value


def _asked(item: Any) -> Any:
    """One question in any of its spellings as `{prompt, answer}`."""
    if isinstance(item, str):
        return {"prompt": item}
    if not isinstance(item, Mapping) or not {"loc", "ground_truth"} & item.keys():
        return item
    found = _pick(item, {"prompt": ("prompt", "loc"), "answer": ("ground_truth", "loc_ans")}).values
    return {**found, "answer": _first(found.get("answer"))}


def _paired(prompts: Any, answers: Any) -> list[Any]:
    """Questions from a prompt and an answer, or from two lists of the same length."""
    if not isinstance(prompts, list):
        return [] if prompts is None else [{"prompt": prompts, "answer": _first(answers)}]
    if not isinstance(answers, list) or len(answers) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need as many answers")
    return [{"prompt": prompt, "answer": _first(answer)} for prompt, answer in zip(prompts, answers, strict=True)]


def _questions(value: Any, where: str, *, kinds: bool = True) -> Any:
    """Questions from a list, from `{kind: list}`, or from `{kind: {prompt, ground_truth}}`."""
    if value is None or isinstance(value, str):
        return _listed(value)
    if isinstance(value, list | tuple):
        return [_asked(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "prompt" in value:
        try:
            return _paired(value["prompt"], value.get("ground_truth"))
        except ValueError as error:
            raise MisshapenError(where, value, str(error)) from error
    if not kinds:
        return value
    found: list[Any] = []
    for kind, group in value.items():
        part = _questions(group, f"{where}.{kind}", kinds=False)
        if not isinstance(part, list):
            raise MisshapenError(f"{where}.{kind}", group, "must be a list of questions")
        found.extend(part)
    return found


def _own(row: Raw) -> list[Draft]:
    values = dict(row)
    for key in ("neighbours", "portability"):
        if isinstance(values.get(key), list | tuple):
            values[key] = [_asked(item) for item in values[key]]
    return [Draft(values)]


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
    draft = _pick(row, _EASYEDIT)
    values = draft.values
    values["target_true"] = _first(values.get("target_true"))
    values["paraphrases"] = _listed(values.get("paraphrases"))
    for key in ("neighbours", "portability"):
        values[key] = _questions(values.get(key), draft.names[key])
    return [draft]


def _counterfact_flat(row: Raw) -> list[Draft]:
    """As EasyEdit, with questions in keys of their own: `locality_prompt`, `locality_ground_truth`."""
    (draft,) = _easyedit({key: row[key] for key in row if key not in ("locality", "portability")})
    for own, key in (("neighbours", "locality"), ("portability", "portability")):
        where = f"{key}_prompt"
        pair = {"prompt": row.get(where), "ground_truth": row.get(f"{key}_ground_truth")}
        draft.values[own] = [*_questions(row.get(key), key), *_questions(pair, where)]
        draft.names[own] = where
    return [draft]


_REWRITE = {
    "subject": ("subject",),
    "prompt": ("prompt",),
    "target_new": ("target_new",),
    "target_true": ("target_true",),
    "relation": ("relation_id",),
}


def _rewrite(given: Any, where: str) -> Draft:
    """A draft from one `requested_rewrite`: a template with `{}`, targets as `{str, id}`."""
    if not isinstance(given, Mapping):
        raise MisshapenError(where, given, "must be an object with subject, prompt and target_new")
    draft = _pick(given, _REWRITE, prefix=f"{where}.")
    values = draft.values
    for key in ("target_new", "target_true"):
        target = values.get(key)
        if isinstance(target, Mapping) and "str" in target:
            values[key], draft.names[key] = target["str"], f"{where}.{key}.str"
    subject, prompt = values.get("subject"), values.get("prompt")
    if isinstance(subject, str) and isinstance(prompt, str):
        values["prompt"] = prompt.replace("{}", subject.strip())
    return draft


def _counterfact(row: Raw) -> list[Draft]:
    draft = _rewrite(row["requested_rewrite"], "requested_rewrite")
    draft.names.update(paraphrases="paraphrase_prompts", neighbours="neighborhood_prompts")
    draft.values["paraphrases"] = _listed(row.get("paraphrase_prompts"))
    near = _listed(row.get("neighborhood_prompts"))
    # These prompts were collected because the true object is their answer too.
    answer = draft.values.get("target_true")
    draft.values["neighbours"] = (
        [{"prompt": prompt, "answer": answer} for prompt in near] if isinstance(near, list) else near
    )
    return [draft]


def _mquake(row: Raw) -> list[Draft]:
    """One draft a rewrite; the multi-hop questions go with each, since any of them can break the chain."""
    rewrites = row["requested_rewrite"]
    if not rewrites:
        raise MisshapenError("requested_rewrite", rewrites, "is empty: there is nothing to teach")
    asked = _listed(row.get("questions"))
    hops = (
        [{"prompt": prompt, "answer": row.get("new_answer")} for prompt in asked] if isinstance(asked, list) else asked
    )
    drafts = []
    for index, given in enumerate(rewrites):
        where = f"requested_rewrite[{index}]"
        draft = _rewrite(given, where)
        draft.names.update(paraphrases=f"{where}.question", portability="questions")
        draft.values.update(paraphrases=_listed(given.get("question")), portability=hops)
        drafts.append(draft)
    return drafts


def _has(*keys: str) -> Callable[[Raw], bool]:
    return lambda row: any(key in row for key in keys)


_EASYEDIT_KEYS = frozenset(key for keys in _EASYEDIT.values() for key in keys)
_FLAT_KEYS = ("locality_prompt", "locality_ground_truth", "portability_prompt", "portability_ground_truth")

SHAPES: tuple[Shape, ...] = (
    Shape(
        "MQuAKE",
        lambda row: isinstance(row.get("requested_rewrite"), list),
        _mquake,
        frozenset({"requested_rewrite", "questions", "new_answer"}),
    ),
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
    Shape("own", lambda row: True, _own),
)


def shape_of(row: Raw) -> Shape:
    """The first shape that fits `row`."""
    return next(shape for shape in SHAPES if shape.fits(row))

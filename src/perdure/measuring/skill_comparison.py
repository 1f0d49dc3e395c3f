"""Skills of two models compared: traits, vectors and verdicts; every part computed once and kept in a folder.

The two may be versions of a workspace or any two checkpoints of one architecture, made by any tool.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from perdure.content import digest_file, digest_json, write_atomic
from perdure.errors import IntegrityError, ModelError, RequestError, SettingError
from perdure.measuring.skills import Skill, SkillMeasures, compare_answers, judge_skill
from perdure.measuring.suites import Suite
from perdure.models import load, resolve
from perdure.progress import Progress, silent
from perdure.requests.functions import Function, read_function
from perdure.vectors import (
    Judged,
    Traits,
    VectorConfig,
    activation_shift,
    judge,
    rank_correlation,
    similarity,
    strongest,
    study,
    universal_heads,
    vector_of,
)
from perdure.vectors.files import read_traits, write_traits

_FORMAT = 1  # of how traits are taken and judged; those of another format are taken again
_DIGITS = 6
_ASKED = ("zero-shot", "few-shot")


@dataclass(frozen=True)
class Side:
    """One of the models that are compared.

    Attributes:
        name: What it is called.
        id: A hash of its weights and configuration.
        load: Gives the running model and its tokenizer.
    """

    name: str
    id: str
    load: Callable[[], tuple[Any, Any]]

    @classmethod
    def of_checkpoint(cls, source: str | Path, device: str = "cpu") -> "Side":
        """A model by its folder, .gguf file, name in the catalogue or hub id."""
        folder = resolve(source)
        files = sorted(path for path in folder.iterdir() if path.suffix in {".safetensors", ".json"})
        identity = digest_json([[path.name, digest_file(path)] for path in files])
        return cls(str(source), identity, lambda: load(folder, device=device))


@dataclass(frozen=True)
class Bench:
    """How skills are compared, and where what was found is kept.

    Attributes:
        config: The settings.
        folder: Where traits and comparisons are kept, under hashes of all that they depend on.
        progress: Told how far the work is.
    """

    config: VectorConfig
    folder: Path
    progress: Progress = silent

    def labelled(self, side: Side, function: Function) -> Progress:
        """The progress of one function on one model."""
        return lambda stage, done, total: self.progress(f"{side.name}, {function.name}: {stage}", done, total)


def built_in_functions() -> list[Function]:
    """The in-context functions of the built-in suite."""
    return [Function(name, pairs) for name, pairs in sorted(Suite.built_in().functions.items())]


def functions_named(names: Sequence[str]) -> list[Function]:
    """Built-in functions by their names, and functions in files by their paths; all built-in ones when none is named.

    Raises:
        RequestError: A name that is neither.
    """
    known = {function.name: function for function in built_in_functions()}
    found = []
    for name in names or known:
        if name in known:
            found.append(known[name])
        elif Path(name).suffix and Path(name).is_file():
            found.append(read_function(Path(name)))
        else:
            raise RequestError(
                f"{name!r} is neither a built-in function nor a file. Built-in: {', '.join(known)}; "
                "a file is .json, .jsonl or .csv with an input and an output in each row"
            )
    return found


def vector_config(given: Mapping[str, Any]) -> VectorConfig:
    """The settings of function vectors, checked.

    Raises:
        SettingError: A setting that does not exist or is out of range.
    """
    try:
        return VectorConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(VectorConfig.model_fields)
        raise SettingError(f"function vectors: {where}: {first['msg']}. Settings: {known}") from error


def traits_of(side: Side, function: Function, bench: Bench) -> Traits:
    """What the heads of a model do in a function; computed once."""
    about = {
        "format": _FORMAT,
        "model": side.id,
        "function": function.digest,
        "settings": bench.config.model_dump(mode="json"),
    }
    path = bench.folder / f"{digest_json(about)}.safetensors"
    if path.exists():
        try:
            return read_traits(path)[0]
        except IntegrityError:
            path.unlink()  # can be computed again
    model, tokenizer = side.load()
    found = study(model, tokenizer, function, bench.config, bench.labelled(side, function))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_traits(path, found, about)
    return found


def compare_skills(before: Side, after: Side, functions: Sequence[Function], bench: Bench) -> SkillMeasures:
    """What became of skills between two models; recalled if they were compared before.

    Raises:
        RequestError: The model before can do none of the functions in context.
        ModelError: The two have other numbers of layers, heads or hidden units.
    """
    identity = digest_json(
        {
            "format": _FORMAT,
            "before": before.id,
            "after": after.id,
            "functions": [[function.name, function.digest] for function in functions],
            "settings": bench.config.model_dump(mode="json"),
        }
    )
    found = read_comparison(bench.folder, identity)
    if found is None:
        found = _compare(before, after, functions, bench, identity)
        write_atomic(_comparison(bench.folder, identity), found.model_dump_json().encode())
    return found.model_copy(update={"before": before.name, "after": after.name})


def read_comparison(folder: Path, identity: str) -> SkillMeasures | None:
    """The comparison with this id; None if there is none, or a damaged one."""
    try:
        return SkillMeasures.model_validate(json.loads(_comparison(folder, identity).read_bytes()))
    except (OSError, ValueError):
        return None


def _comparison(folder: Path, identity: str) -> Path:
    return folder / f"{identity}.json"


def _compare(before: Side, after: Side, functions: Sequence[Function], bench: Bench, identity: str) -> SkillMeasures:
    older = {function.name: traits_of(before, function, bench) for function in functions}
    heads = universal_heads(list(older.values()), bench.config.heads)
    told = [function for function in functions if not older[function.name].evidence.reason]
    model, _ = before.load()
    vectors = {function.name: vector_of(model, older[function.name], heads) for function in told}
    first = {function.name: _judged(before, function, vectors[function.name], bench) for function in told}
    newer = {function.name: traits_of(after, function, bench) for function in told}
    _check_fit(older[told[0].name], newer[told[0].name])
    model, _ = after.load()
    skills = []
    for function in functions:
        name = function.name
        if name not in newer:
            skills.append(Skill(name=name, verdict="untold", reason=older[name].evidence.reason))
            continue
        second = _judged(after, function, vectors[name], bench)
        moved = 1 - similarity(vectors[name], vector_of(model, newer[name], heads))
        found = _skill(older[name], newer[name], first[name], second, shift=moved, count=len(heads))
        skills.append(found)
    return SkillMeasures(
        id=identity,
        before=before.name,
        after=after.name,
        heads=tuple(heads),
        settings=bench.config.model_dump(mode="json"),
        skills=tuple(skills),
    )


def _judged(side: Side, function: Function, vector_D: Tensor, bench: Bench) -> dict[str, Judged]:
    model, tokenizer = side.load()
    return judge(model, tokenizer, function, vector_D, bench.config, bench.labelled(side, function), kinds=_ASKED)


def _check_fit(older: Traits, newer: Traits) -> None:
    if older.mean_LHK.shape != newer.mean_LHK.shape:
        first, second = (
            " x ".join(map(str, traits.mean_LHK.shape)) + " (layers x heads x head size)" for traits in (older, newer)
        )
        raise ModelError(f"the two models have other heads: {first} and {second}; give two checkpoints of one model")


def _skill(
    older: Traits, newer: Traits, first: Mapping[str, Judged], second: Mapping[str, Judged], *, shift: float, count: int
) -> Skill:
    asked = {kind: compare_answers(first[kind], second[kind]) for kind in _ASKED}
    verdict, recovered = judge_skill(asked["few-shot"])
    same = set(strongest(older.effect_LH, count)) & set(strongest(newer.effect_LH, count))
    return Skill(
        name=older.name,
        verdict=verdict,
        recovered=None if recovered is None else round(recovered, _DIGITS),
        shift=round(shift, _DIGITS),
        ranking=round(rank_correlation(older.effect_LH, newer.effect_LH), _DIGITS),
        kept_heads=len(same),
        activations=tuple(
            tuple(round(value, _DIGITS) for value in row)
            for row in activation_shift(older.mean_LHK, newer.mean_LHK).tolist()
        ),
        asked=asked,
    )

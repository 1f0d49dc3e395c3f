"""Skills of two models compared: traits, vectors and verdicts; every part computed once and kept in a folder.

The two may be versions of a workspace or any two checkpoints of one architecture, made by any tool.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor

from perdure.content import digest_file, digest_json, write_atomic
from perdure.errors import IntegrityError, ModelError, RequestError
from perdure.measuring.skills import Skill, SkillMeasures, compare_answers, judge_skill
from perdure.measuring.suites import Suite
from perdure.models import layout_of, load, resolve
from perdure.progress import Progress, silent
from perdure.requests.functions import Function, read_function
from perdure.settings import checked
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
from perdure.vectors.studies import KINDS

M = TypeVar("M", bound=BaseModel)

_FORMAT = 1  # of how traits are taken and judged; those of another format are taken again
_DIGITS = 6
_FARTHEST = 1e6  # a head that was silent before moved without end in its own length, which JSON cannot hold
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
        return cls(str(source), identity, _Checkpoint(folder, device))


class _Checkpoint:
    """Loads a model where nobody holds it any more: of two that are compared only one need be in memory."""

    def __init__(self, folder: Path, device: str) -> None:
        self._folder, self._device = folder, device
        self._model: Callable[[], Any] = lambda: None
        self._tokenizer: Any = None

    def __call__(self) -> tuple[Any, Any]:
        model = self._model()
        if model is None:
            model, self._tokenizer = load(self._folder, device=self._device)
            self._model = weakref.ref(model)
        return model, self._tokenizer


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


def functions_named(names: Sequence[str | Path]) -> list[Function]:
    """Built-in functions by their names, and functions in files by their paths; all built-in ones when none is named.

    Raises:
        RequestError: A name that is neither.
    """
    known = {function.name: function for function in built_in_functions()}
    found = []
    for name in map(str, names or known):
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


def distinct(functions: Sequence[Function]) -> list[Function]:
    """The functions, each once.

    Raises:
        RequestError: Two of one name differ: what was found goes by the name.
    """
    found: dict[str, Function] = {}
    for function in functions:
        if found.setdefault(function.name, function).digest != function.digest:
            raise RequestError(f"two functions are called {function.name!r}; rename one of the files")
    return list(found.values())


def vector_config(given: Mapping[str, Any]) -> VectorConfig:
    """The settings of function vectors, checked.

    Raises:
        SettingError: A setting that does not exist or is out of range.
    """
    return checked(VectorConfig, given, "function vectors")


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
            return replace(read_traits(path)[0], name=function.name)  # the same pairs may be called otherwise
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
    functions = distinct(functions)
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
    return recalled(SkillMeasures, _comparison(folder, identity))


def recalled(kind: type[M], path: Path) -> M | None:
    """What is kept in a file; None if nothing is, or it is damaged: it can be made again."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _comparison(folder: Path, identity: str) -> Path:
    return folder / f"{identity}.json"


def _compare(before: Side, after: Side, functions: Sequence[Function], bench: Bench, identity: str) -> SkillMeasures:
    model, _ = before.load()  # held, so that it is loaded once
    older = {function.name: traits_of(before, function, bench) for function in functions}
    heads = universal_heads(list(older.values()), bench.config.heads)
    told = [function for function in functions if not older[function.name].evidence.reason]
    vectors = {function.name: vector_of(model, older[function.name], heads) for function in told}
    first = {
        function.name: judged_on(before, function, vectors[function.name], bench, kinds=_ASKED) for function in told
    }
    shape = _shape(model)
    del model
    model, _ = after.load()
    _check_fit(shape, _shape(model))
    newer = {function.name: traits_of(after, function, bench) for function in told}
    skills = []
    for function in functions:
        name = function.name
        if name not in newer:
            skills.append(Skill(name=name, verdict="untold", reason=older[name].evidence.reason))
            continue
        second = judged_on(after, function, vectors[name], bench, kinds=_ASKED)
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


def judged_on(
    side: Side, function: Function, vector_D: Tensor, bench: Bench, *, kinds: Sequence[str] = tuple(KINDS)
) -> dict[str, Judged]:
    """What a vector does on a function's held-out questions; see `perdure.vectors.judge`."""
    model, tokenizer = side.load()
    return judge(model, tokenizer, function, vector_D, bench.config, bench.labelled(side, function), kinds=kinds)


def _shape(model: Any) -> tuple[int, int, int, int]:
    layout = layout_of(model)
    return len(layout), layout.heads, layout.head_dim, layout.d_model


def _check_fit(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    if first != second:
        older, newer = (" x ".join(map(str, shape)) for shape in (first, second))
        raise ModelError(
            f"the two models differ in layers x heads x head size x hidden size: {older} and {newer}; "
            "give two checkpoints of one model"
        )


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
            tuple(round(min(value, _FARTHEST), _DIGITS) for value in row)
            for row in activation_shift(older.mean_LHK, newer.mean_LHK).tolist()
        ),
        asked=asked,
    )

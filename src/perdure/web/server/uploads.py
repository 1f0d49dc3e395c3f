"""Facts and tasks that come as a file or are typed: checked with every fault named, before they join the queue."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from perdure.errors import RequestError, SettingError
from perdure.requests import Fact, FactFile, Problem, Task, check_facts, read_facts, read_task
from perdure.requests.formats import FORMATS
from perdure.requests.task_files import TASK_FORMATS
from perdure.web.server.words import _
from perdure.workspace import Version, Workspace
from perdure.workspace.observations import Kpi

_ODD = re.compile(r"[^\w.-]+")
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Checked:
    """What is known about facts while they are typed.

    Attributes:
        facts: Those that can be taken; none while any is wrong.
        problems: What is wrong, by the number of the fact (from 1; 0 for all of them together).
        notes: What somebody should know, by the number of the fact.
    """

    facts: tuple[Fact, ...]
    problems: tuple[tuple[int, str], ...]
    notes: tuple[tuple[int, str], ...] = ()


def check_typed(shop: Workspace, rows: Sequence[Mapping[str, Any]], on: Version, places: Sequence[int]) -> Checked:
    """Facts as somebody types them: what is wrong, and what the version to be changed knows of them already.

    Args:
        shop: The workspace.
        rows: The facts.
        on: The version to be changed.
        places: What number each has in the form.
    """
    if not rows:
        return Checked((), ())
    try:
        found = check_facts(rows, name=_("facts"))
    except RequestError as error:
        given = [problem for problem in error.problems if isinstance(problem, Problem)]
        return Checked((), tuple(_told(problem, places) for problem in given) or ((0, str(error)),))
    return Checked(found.facts, (), tuple(_notes(shop, found.facts, on, places)))


def _told(problem: Problem, places: Sequence[int]) -> tuple[int, str]:
    number = problem.place.number
    words = f"{problem.field}: {problem.reason}" if problem.field else problem.reason
    return (0 if number is None else places[number]), words


def _notes(shop: Workspace, facts: Sequence[Fact], on: Version, places: Sequence[int]) -> Iterator[tuple[int, str]]:
    known = _in_force(shop, on.id)
    # Rows that ask for one fact are joined: then no fact has a number of its own any more.
    numbers = places if len(facts) == len(places) else [0] * len(facts)
    for number, fact in zip(numbers, facts, strict=True):
        held = known.get((fact.subject.casefold(), fact.prompt.casefold()))
        if held == fact.target_new:
            yield number, _("{version} was taught this already").format(version=on.name)
        elif held is not None:
            words = _("{version} was taught “{held}” here; this replaces it")
            yield number, words.format(version=on.name, held=held)


@lru_cache(maxsize=8)
def _in_force(shop: Workspace, version: str) -> Mapping[tuple[str, str], str]:
    """The answers that a version was taught, by subject and prompt; a version never changes."""
    facts = shop.facts_in_force(version)
    return {(fact.subject.casefold(), fact.prompt.casefold()): fact.target_new for fact in facts}


def uploaded_facts(shop: Workspace, name: str, data: bytes) -> FactFile:
    """The checked facts of a file that somebody sent.

    Raises:
        RequestError: It cannot be read, or a row is bad; `.problems` has each reason.
    """
    with _laid_down(shop, name, data, FORMATS) as path:
        return read_facts(path)


def uploaded_task(shop: Workspace, name: str, data: bytes, called: str = "") -> Task:
    """The checked task of a file that somebody sent; no row may name a file.

    Raises:
        RequestError: As for facts.
    """
    with _laid_down(shop, name, data, TASK_FORMATS) as path:
        return read_task(path, name=called or path.stem, test=TEST_SHARE, images=False)


def enter_kpis(shop: Workspace, name: str, data: bytes, *, actor: str) -> list[Kpi]:
    """The KPIs of a CSV file that somebody sent, entered: all of them, or none where a row is bad.

    Raises:
        RequestError: Every bad row, with the reason.
    """
    with _laid_down(shop, name, data, {".csv": "CSV"}) as path:
        return shop.import_kpis(path, actor=actor)


def safe_name(name: str) -> str:
    """What a file that somebody sent is called here: the last part of its name, with nothing odd in it."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return _ODD.sub("_", last)[-60:].strip("._") or "upload"


@contextmanager
def _laid_down(shop: Workspace, name: str, data: bytes, known: Mapping[str, Any]) -> Iterator[Path]:
    """The bytes as a file inside the workspace, in a folder of its own that only the server may enter."""
    own = safe_name(name)
    if Path(own).suffix.lower() not in known:
        words = _("A file must end in one of {known}; given {name}.")
        raise SettingError(words.format(known=", ".join(known), name=own))
    with tempfile.TemporaryDirectory(dir=shop.folder / "tmp") as folder:
        path = Path(folder) / own
        path.write_bytes(data)
        yield path

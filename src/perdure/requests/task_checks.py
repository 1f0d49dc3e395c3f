"""The parts of a task against each other: duplicates, leakage, contradictions, and a split that shares no prompt."""

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from perdure.content import digest_json
from perdure.requests.examples import Example, Task

Examples = tuple[Example, ...]
_SHOWN = 3


def prompt_key(example: Example) -> bytes:
    """What is equal for two examples exactly where their prompts are."""
    *_, (key, _) = _answered(example)
    return key


def _answered(example: Example) -> Iterator[tuple[bytes, str]]:
    """For each of the assistant's messages, the key of all that stands before it, and what it says."""
    hasher = hashlib.sha256(b"plain" if example.plain else b"chat")
    for message in example.messages:
        if message.role == "assistant":
            yield hasher.digest(), message.content
        hasher.update(digest_json([message.role, message.content, *message.images]).encode())


def merge_duplicates(examples: Sequence[Example]) -> tuple[Examples, list[str]]:
    """The examples with every conversation once, with the references of all its copies, and a note."""
    kept: dict[tuple[bytes, str], Example] = {}
    merged = []
    for example in examples:
        key = (prompt_key(example), example.answer)
        first = kept.setdefault(key, example)
        if first is not example:
            merged.append(example)
            references = tuple(dict.fromkeys([*first.references, *example.references]))
            if references != first.references:
                kept[key] = first.model_copy(update={"references": references})
    return tuple(kept.values()), _noted("twice in train, merged", merged)


def drop_leaks(examples: Sequence[Example], held: Sequence[Example], what: str) -> tuple[Examples, list[str]]:
    """The examples without those in which a held-out prompt gets an answer that is right there, and a note.

    Every answer of the assistant counts, not only the last: all of them are trained on.

    Args:
        examples: Those to take from.
        held: What must not be among them.
        what: How the note begins.
    """
    right = _references_by_prompt(held)
    leaked = [e for e in examples if any(answer in right.get(key, ()) for key, answer in _answered(e))]
    gone = set(map(id, leaked))
    kept = tuple(example for example in examples if id(example) not in gone)
    return kept, _noted(what, leaked)


def _references_by_prompt(examples: Iterable[Example]) -> dict[bytes, set[str]]:
    found: dict[bytes, set[str]] = {}
    for example in examples:
        found.setdefault(prompt_key(example), set()).update(example.references)
    return found


def note_contradictions(examples: Iterable[Example]) -> list[str]:
    """A note where the same prompt has another answer that the first one does not allow."""
    first: dict[bytes, Example] = {}
    found = []
    for example in examples:
        other = first.setdefault(prompt_key(example), example)
        if not set(other.references) & set(example.references):
            found.append(f"{other.source or 'a row'} and {example.source or 'another'}")
    return tell_count("the same prompt with another answer", found)


def split_off(
    examples: Sequence[Example], shares: Mapping[str, float], seed: int, fixed: Collection[bytes] = ()
) -> dict[str, Examples]:
    """The examples in parts, those with one prompt in one part; what no share takes is train.

    A prompt's place is the hash of the seed and the prompt, so that another row moves few others.

    Args:
        examples: In any order; each part keeps it.
        shares: By part, which share of the examples it gets at most, rounded.
        seed: Another seed gives another split.
        fixed: Keys of prompts that stay in train, because another part has them already.
    """
    keys = [prompt_key(example) for example in examples]
    sizes = Counter(keys)
    waiting = sorted(sizes.keys() - set(fixed), key=lambda key: hashlib.sha256(f"{seed}:".encode() + key).digest())
    part_of: dict[bytes, str] = {}
    for part, share in shares.items():
        room = round(share * len(examples))
        for key in waiting:
            if key not in part_of and sizes[key] <= room:
                part_of[key] = part
                room -= sizes[key]
    parts: dict[str, list[Example]] = {part: [] for part in ("train", *shares)}
    for key, example in zip(keys, examples, strict=True):
        parts[part_of.get(key, "train")].append(example)
    return {part: tuple(found) for part, found in parts.items()}


def tell_count(what: str, names: Sequence[str]) -> list[str]:
    """A note of how many there are, with the first few names; none where there are none."""
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{what}: {len(names)} ({', '.join(names[:_SHOWN])}{more})"]


def _noted(what: str, examples: Sequence[Example]) -> list[str]:
    return tell_count(what, [example.source or "a row" for example in examples])


@dataclass(frozen=True)
class Lengths:
    """How long the examples of one part are, in tokens.

    Attributes:
        n: How many examples there are.
        shortest: The least.
        median: Half are no longer; the mean of the middle two for an even number.
        p95: 95 in 100 are no longer (nearest rank).
        longest: The most.
        total: The sum.
        over: How many are longer than the limit.
    """

    n: int
    shortest: int
    median: float
    p95: int
    longest: int
    total: int
    over: int


@dataclass(frozen=True)
class LengthReport:
    """How long the examples of a task are.

    Attributes:
        limit: What an example may have, in tokens.
        parts: By part; a part without examples is left out.
    """

    limit: int
    parts: dict[str, Lengths]

    @property
    def n(self) -> int:
        """How many examples there are."""
        return sum(part.n for part in self.parts.values())

    @property
    def total(self) -> int:
        """All tokens."""
        return sum(part.total for part in self.parts.values())

    @property
    def over(self) -> int:
        """How many examples are longer than the limit."""
        return sum(part.over for part in self.parts.values())


def length_report(task: Task, count: Callable[[Example], int], limit: int) -> LengthReport:
    """How long the examples of each part are.

    Args:
        task: The task.
        count: The number of tokens of an example.
        limit: What an example may have.
    """
    counted = {part: sorted(map(count, examples)) for part, examples in task.parts.items() if examples}
    return LengthReport(limit, {part: _lengths(tokens, limit) for part, tokens in counted.items()})


def _lengths(tokens: Sequence[int], limit: int) -> Lengths:
    """Of counts in rising order."""
    return Lengths(
        n=len(tokens),
        shortest=tokens[0],
        median=statistics.median(tokens),
        p95=tokens[math.ceil(0.95 * len(tokens)) - 1],
        longest=tokens[-1],
        total=sum(tokens),
        over=sum(token > limit for token in tokens),
    )

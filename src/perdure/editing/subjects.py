"""Where facts live in a model: texts around a subject, and the states at the subject's last token.

Shape suffixes: N facts, I inputs of a projection, D hidden size.
"""

import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from perdure.editing.beginnings import Beginnings, read_beginnings
from perdure.editing.statistics import built_in_texts
from perdure.errors import RequestError
from perdure.models import Layout, capture
from perdure.models.tokens import encode, join, last_token_of
from perdure.requests import Fact

_SENTENCE = re.compile(r"(?:(?<=^)|(?<=[.!?] ))[A-Z][A-Za-z0-9 ,'-]{24,74}\.(?= |$)", re.MULTILINE)


@dataclass(frozen=True)
class Contexts:
    """Texts put before a prompt, so that an edit does not hang on the bare prompt alone.

    Attributes:
        prefixes: The first is empty (the bare prompt); the others are sentences with a space at the end.
    """

    prefixes: tuple[str, ...] = ("",)

    def weights(self) -> list[float]:
        """The weight of each context in a mean over types: the bare prompt is one type, the others one."""
        others = len(self.prefixes) - 1
        return [1.0] if not others else [0.5] + [0.5 / others] * others


def sample_contexts(count: int = 5, seed: int = 0) -> Contexts:
    """The bare prompt and `count` sentences of 25 to 75 characters, each of another built-in passage, seeded.

    ROME lets the model write its prefixes; small models write poor ones, and every device writes its own.
    Sentences from text are the same everywhere and cost nothing.
    """
    passages = [found for found in map(_SENTENCE.findall, built_in_texts()) if found]
    draw = random.Random(seed)
    return Contexts(("", *(f"{draw.choice(passage)} " for passage in draw.sample(passages, count))))


@dataclass(frozen=True)
class SubjectRow:
    """One text about a fact's subject.

    Attributes:
        fact: The fact's place in its batch.
        context: The context's place.
        ids: The tokens of the whole text.
        at: The index of the subject's last token.
        target: Where the answer starts in `ids`; equal to their number for a text without an answer.
    """

    fact: int
    context: int
    ids: tuple[int, ...]
    at: int
    target: int

    @property
    def group(self) -> int:
        """Rows of one group begin alike: those after the same context; −1 for texts without an answer."""
        return self.context if self.target < len(self.ids) else -1


def last_mention(text: str, subject: str) -> int:
    """Where the last mention of the subject ends that is no part of a longer word; if there is none, the last one."""
    found = [match.start() for match in re.finditer(f"(?={re.escape(subject)})", text)]
    ends = [start + len(subject) for start in found if not _cuts(text, start) and not _cuts(text, start + len(subject))]
    return ends[-1] if ends else found[-1] + len(subject)


def beginning_of(fact: Fact) -> str:
    """The prompt up to the subject's end: facts that begin alike are written at one place."""
    return fact.prompt[: last_mention(fact.prompt, fact.subject)]


def companions(facts: Sequence[Fact], earlier: Sequence[Fact]) -> list[Fact]:
    """Earlier facts that begin as one of these does and that neither these nor a later one overwrites, oldest first.

    Args:
        facts: Facts that are about to be written.
        earlier: What the model was taught before, in order; of facts with the same prompt the last is in force.
    """
    beginnings = {beginning_of(fact) for fact in facts}
    latest = {fact.prompt: fact for fact in earlier if beginning_of(fact) in beginnings}
    overwritten = {fact.prompt for fact in facts}
    return [fact for prompt, fact in latest.items() if prompt not in overwritten]


def _cuts(text: str, place: int) -> bool:
    """Whether a word goes on across this place; characters written without spaces are words of their own."""
    return 0 < place < len(text) and all(map(_joins, text[place - 1 : place + 1]))


def _joins(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" and unicodedata.east_asian_width(character) not in "WF"


def subject_row(tokenizer: Any, fact: Fact, text: str, answer: str, *, place: tuple[int, int]) -> SubjectRow:
    """The tokens of `text` and `answer`, with the last mention of the subject found.

    Raises:
        RequestError: No token of the answer comes after the subject's last token.
    """
    whole = join(text, answer) if answer else text
    end = last_mention(text, fact.subject)
    ids = encode(tokenizer, whole)
    at = last_token_of(tokenizer, whole, end)
    alone = encode(tokenizer, text)
    target = len(ids)
    if answer:
        same = (index for index, (a, b) in enumerate(zip(alone, ids, strict=False)) if a != b)
        target = max(at + 1, min(next(same, len(alone)), len(ids) - 1))
        if target >= len(ids):
            raise RequestError(
                f"in {whole!r} the tokenizer joins the answer to the subject's last token, so nothing can be "
                "learnt after the subject; reword the prompt so that the subject does not end it"
            )
    return SubjectRow(place[0], place[1], tuple(ids), at, target)


def target_rows(tokenizer: Any, facts: Sequence[Fact], contexts: Contexts) -> list[SubjectRow]:
    """Prompt and new answer of each fact after each context."""
    return [
        subject_row(tokenizer, fact, prefix + fact.prompt, fact.target_new, place=(number, context))
        for number, fact in enumerate(facts)
        for context, prefix in enumerate(contexts.prefixes)
    ]


def with_rows(tokenizer: Any, facts: Sequence[Fact], contexts: Contexts) -> list[Fact]:
    """Those of the facts that have rows: one that a training taught may have an answer that joins its subject."""
    found = []
    for fact in facts:
        with suppress(RequestError):
            target_rows(tokenizer, [fact], contexts)
            found.append(fact)
    return found


def essence_rows(tokenizer: Any, facts: Sequence[Fact]) -> list[SubjectRow]:
    """ "{subject} is a" of each fact: what the subject is must not change."""
    return [
        subject_row(tokenizer, fact, f"{fact.subject} is a", "", place=(number, 0)) for number, fact in enumerate(facts)
    ]


def sites_of(rows: Sequence[SubjectRow]) -> list[int]:
    """Where each fact is written: the place of the first fact that reads the same up to the subject's last token.

    A model sees nothing after that token there, so facts of one site have one state and one key, and can be given
    one value only.

    Args:
        rows: Prompts and answers of all facts in all contexts, fact by fact.
    """
    seen: dict[int, list[tuple[int, ...]]] = {}
    for row in rows:
        seen.setdefault(row.fact, []).append(row.ids[: row.at + 1])
    first: dict[tuple[tuple[int, ...], ...], int] = {}
    return [first.setdefault(tuple(beginnings), fact) for fact, beginnings in seen.items()]


@dataclass(frozen=True)
class SubjectStates:
    """States at the subjects' last tokens.

    Attributes:
        keys: From layer to the mean input of its down-projection [I, N], float64.
        block: The output [N, D] of the last layer's block on the bare prompts, float64.
    """

    keys: dict[int, Tensor]
    block: Tensor


def subject_states(
    model: Any,
    layout: Layout,
    rows: Sequence[SubjectRow],
    weights: Sequence[float],
    *,
    layers: Sequence[int],
    last: int,
) -> SubjectStates:
    """Keys of `layers` and the block output of layer `last`, in one pass that ends there.

    Args:
        model: The model, with whatever edits it carries now.
        layout: Its layout.
        rows: Texts of all facts in all contexts, context 0 being the bare prompt.
        weights: The weight of each context in a key.
        layers: Layers whose keys are wanted.
        last: The layer whose block output is wanted.
    """
    count = max(row.fact for row in rows) + 1
    keys = {layer: torch.zeros(layout.mlp_out[layer].d_in, count, dtype=torch.float64) for layer in layers}
    block_ND = torch.zeros(count, layout.d_model, dtype=torch.float64)
    wanted = {layer: layout.mlp_out[layer].module for layer in layers}
    beginnings = read_beginnings(model, layout, rows, last=last)
    for chosen in _batches(rows, beginnings):
        batch = beginnings.rest(chosen, [row.ids[: row.at + 1] for row in chosen], model.device)
        with torch.no_grad():
            seen = capture(
                partial(model.base_model, **batch.inputs(model)),
                inputs=wanted,
                outputs={"block": layout.blocks[last]},
            )
        read = {layer: seen[layer][:, batch.column].double().cpu() for layer in layers}
        block_BD = seen["block"][:, batch.column].double().cpu()
        for place, row in enumerate(chosen):
            for layer, key_IN in keys.items():
                key_IN[:, row.fact] += weights[row.context] * read[layer][place]
            if row.context == 0:
                block_ND[row.fact] = block_BD[place]
    return SubjectStates(keys, block_ND)


def _batches(
    rows: Sequence[SubjectRow], beginnings: Beginnings, tokens: int = 2048
) -> Iterator[tuple[SubjectRow, ...]]:
    """The rows in batches of similar length, at most `tokens` padded tokens each (one row at least)."""
    own = {row: row.at + 1 - beginnings.lengths.get(row.group, 0) for row in rows}
    batch: list[SubjectRow] = []
    for row in sorted(rows, key=own.__getitem__):
        if batch and own[row] * (len(batch) + 1) > tokens:
            yield tuple(batch)
            batch = []
        batch.append(row)
    yield tuple(batch)

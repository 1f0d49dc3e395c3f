"""In-context prompts: pairs shown, one input asked, and where in the tokens its answer starts.

Todd et al., "Function Vectors in Large Language Models", ICLR 2024, section 2 and appendix C.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perdure.errors import RequestError
from perdure.models.tokens import encode_pair
from perdure.requests.functions import Pair


@dataclass(frozen=True)
class Prompt:
    """One question as tokens.

    Attributes:
        ids: The prompt's tokens; the last one predicts the first token of the answer.
        answer: The answer's tokens, one at least.
    """

    ids: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """The tokens of a teacher-forced pass: the prompt, and the answer but its last token."""
        return self.ids + self.answer[:-1]


@dataclass(frozen=True)
class Split:
    """The pairs of a function: for vectors, for the choice of a layer, and for the figures.

    Attributes:
        train: Shown and asked where head activations and effects are taken.
        validation: Asked where settings are chosen.
        test: Asked for the figures only.
    """

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]


def split(pairs: Sequence[Pair], seed: int) -> Split:
    """Half of the pairs for the vectors, a fifth for choices, the rest for figures, in an order drawn by `seed`.

    Pairs with one input stay together, so that nothing that is asked for figures was shown before.

    Raises:
        RequestError: There are too few different inputs.
    """
    inputs = sorted({pair.input for pair in pairs})
    random.Random(f"split {seed}").shuffle(inputs)
    first, second = len(inputs) // 2, len(inputs) * 7 // 10
    if len(inputs) < LEAST_INPUTS:
        raise RequestError(
            f"{len(inputs)} different inputs; a function needs at least {LEAST_INPUTS}: half of them are shown, "
            "a fifth chooses the layer, the rest is asked for the figures"
        )
    places = {text: place for place, text in enumerate(inputs)}
    parts: tuple[list[Pair], ...] = ([], [], [])
    for pair in pairs:
        place = places[pair.input]
        parts[(place >= first) + (place >= second)].append(pair)
    return Split(*(tuple(part) for part in parts))


LEAST_INPUTS = 20
"""A function with fewer different inputs is refused."""


def prompt_of(tokenizer: Any, shown: Sequence[Pair], asked: Pair) -> Prompt:
    """`Q: x\\nA: y\\n\\n` for each pair shown, then `Q: x\\nA:`, answered by ` y`.

    Where a token straddles the end of the prompt, the answer starts with that token.
    """
    text = "".join(f"Q: {pair.input}\nA: {pair.output}\n\n" for pair in shown) + f"Q: {asked.input}\nA:"
    ids, start = encode_pair(tokenizer, text, asked.output)
    return Prompt(tuple(ids[:start]), tuple(ids[start:]))


def few_shot_prompts(
    tokenizer: Any, pairs: Sequence[Pair], asked: Sequence[Pair], shots: int, seed: int, *, shuffled: bool = False
) -> list[Prompt]:
    """A prompt for each pair asked, with pairs of other inputs shown, drawn anew for each.

    Args:
        tokenizer: The model's tokenizer.
        pairs: What may be shown.
        asked: What is asked; the same seed shows the same pairs, shuffled or not.
        shots: How many pairs are shown; 0: none.
        seed: Of the draws.
        shuffled: Give each input shown the output of another one, so that the prompt no longer says what to do.
    """
    prompts = []
    for place, pair in enumerate(asked):
        drawn = random.Random(f"shots {seed} {place}")
        others = [other for other in pairs if other.input != pair.input]
        shown = drawn.sample(others, min(shots, len(others)))
        prompts.append(prompt_of(tokenizer, derange(shown, drawn) if shuffled else shown, pair))
    return prompts


def derange(pairs: Sequence[Pair], drawn: random.Random) -> list[Pair]:
    """The inputs with each other's outputs, none with its own wherever the outputs allow it.

    Cyclic permutations (Sattolo) have no fixed place; of several, the one with the fewest equal outputs is taken,
    for outputs may occur twice.
    """
    outputs = [pair.output for pair in pairs]
    best, least = outputs, len(outputs) + 1
    for _ in range(20):
        cycled = list(outputs)
        for place in range(len(cycled) - 1, 0, -1):
            other = drawn.randrange(place)
            cycled[place], cycled[other] = cycled[other], cycled[place]
        kept = sum(new == old for new, old in zip(cycled, outputs, strict=True))
        if kept < least:
            best, least = cycled, kept
        if not kept:
            break
    return [Pair(input=pair.input, output=output) for pair, output in zip(pairs, best, strict=True)]

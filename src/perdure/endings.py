"""Where an answer ends in a text that a model wrote: with its sentence or line, or with its first clause."""

import re

# A full stop after an initial (J. K. Rowling) or a title (St. Louis) ends no sentence.
_FULL_STOP = r"(?<!\b[A-Z])(?<!\b(?:St|Mt|Dr|Mr|Ms|Jr|Sr|vs))(?<!\bMrs)\."
_END = re.compile(rf"(?:{_FULL_STOP}|[!?])(?=\s|$)|[。！？\n]")
CLAUSE_END = re.compile(r"[,;:()\[\]–—，；：（）]|\s-\s")
"""What ends a clause inside a sentence."""

FRINGE = " \t.,;:!?'\"“”‘’«»()[]*_`。，！？"
"""What may stand around an answer without belonging to it."""


def cut(text: str, answer: str | None = None) -> str:
    """The first sentence of what was written, or its first line, without the mark that ends it.

    Args:
        text: What the model wrote.
        answer: An answer that may itself hold such marks; those inside it end nothing.
    """
    text = text.strip()
    return text[: _end_of(text, answer, len(text))].strip()


def has_ended(text: str, answer: str | None = None) -> bool:
    """Whether `cut` stays as it is whatever the model writes next."""
    text = text.lstrip()
    # A full stop at the very end may still become 3.5, and a line end may follow blanks only.
    return _end_of(text, answer, len(text) - 1) < len(text) - 1 or text.endswith(("\n", "。", "！", "？"))


def first_clause(written: str) -> str:
    """The text up to its first comma, colon, bracket or dash."""
    found = CLAUSE_END.search(written)
    return (written[: found.start()] if found else written).strip(FRINGE)


def _end_of(text: str, answer: str | None, until: int) -> int:
    spans = _spans(text, answer) if answer else []
    for found in _END.finditer(text):
        inside = any(start <= found.start() < stop - 1 for start, stop in spans)
        if not inside and found.start() < until:
            return found.start()
    return until


def _spans(text: str, answer: str) -> list[tuple[int, int]]:
    """Where the answer stands in the text, and where its beginning is still being written."""
    spans = [found.span() for found in re.finditer(re.escape(answer), text, re.IGNORECASE)]
    for length in range(min(len(answer) - 1, len(text)), 0, -1):
        if text[-length:].casefold() == answer[:length].casefold():
            return [*spans, (len(text) - length, len(text) + 2)]
    return spans

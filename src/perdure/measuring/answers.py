"""What counts as an answer in a text that a model wrote: where it ends, and what it says.

Judged without case; the words of an answer must stand whole.
"""

import re
import unicodedata
from collections.abc import Iterable

from perdure.requests.wording import fold

# A full stop after an initial (J. K. Rowling) or a title (St. Louis) ends no sentence.
_FULL_STOP = r"(?<!\b[A-Z])(?<!\b(?:St|Mt|Dr|Mr|Ms|Jr|Sr|vs))(?<!\bMrs)\."
_END = re.compile(rf"(?:{_FULL_STOP}|[!?])(?=\s|$)|[。！？\n]")
_CLAUSE_END = re.compile(r"[,;:()\[\]–—，；：（）]|\s-\s")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_SHORT = 3
_FRINGE = " \t.,;:!?'\"“”‘’«»()[]*_`。，！？"


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


def says(answer: str, text: str) -> bool:
    """Whether the answer stands in the text, on word boundaries."""
    return _pattern(answer).search(fold(text)) is not None


def gives(answer: str, aliases: Iterable[str], text: str) -> bool:
    """Whether the answer or an alias stands in the text.

    An alias of up to three letters, such as "it" for Italian or "us", is an answer only where it stands alone.
    """
    return says(answer, text) or any(
        is_exactly(alias, text) if len(alias) <= _SHORT and alias.isascii() else says(alias, text) for alias in aliases
    )


def has_said(answer: str, text: str) -> bool:
    """Whether the text says the answer whatever is written next: a word is whole when something follows it."""
    return any(found.end() < len(fold(text)) for found in _pattern(answer).finditer(fold(text)))


def is_exactly(answer: str, written: str) -> bool:
    """Whether the text up to its end, or up to the end of a clause in it, is the answer and nothing else."""
    ends = [found.start() for found in _CLAUSE_END.finditer(written)]
    return plain(answer) in {plain(written[:end]) for end in [*ends, len(written)]}


def first_clause(written: str) -> str:
    """The text up to its first comma, colon, bracket or dash."""
    found = _CLAUSE_END.search(written)
    return (written[: found.start()] if found else written).strip(_FRINGE)


def plain(text: str) -> str:
    """The text without case, leading article, and the punctuation around it."""
    bare = fold(text).strip(_FRINGE)
    return _ARTICLES.sub("", bare, count=1).strip() or bare if _ARTICLES.match(bare) else bare


def normalise(text: str) -> str:
    """The text without case, punctuation and articles."""
    words = re.sub(r"[^\w\s]|_", " ", fold(text))
    return " ".join(_ARTICLES.sub(" ", words).split())


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


def _pattern(answer: str) -> re.Pattern[str]:
    wanted = fold(answer)
    before = r"(?<!\w)" if _bounds_words(wanted[:1]) else ""
    after = r"(?!\w)" if _bounds_words(wanted[-1:]) else ""
    return re.compile(before + re.escape(wanted) + after)


def _bounds_words(character: str) -> bool:
    """Whether words that hold this character are set apart: Chinese and Japanese are written without spaces."""
    return bool(character) and unicodedata.east_asian_width(character) not in "WF"

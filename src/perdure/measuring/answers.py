"""What counts as an answer in a text that a model wrote.

Judged without case; the words of an answer must stand whole.
"""

import re
import unicodedata
from collections.abc import Iterable

from perdure.endings import CLAUSE_END, FRINGE
from perdure.requests.wording import fold

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_SHORT = 3


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
    ends = [found.start() for found in CLAUSE_END.finditer(written)]
    return plain(answer) in {plain(written[:end]) for end in [*ends, len(written)]}


def plain(text: str) -> str:
    """The text without case, leading article, and the punctuation around it."""
    bare = fold(text).strip(FRINGE)
    return _ARTICLES.sub("", bare, count=1).strip() or bare if _ARTICLES.match(bare) else bare


def normalise(text: str) -> str:
    """The text without case, punctuation and articles."""
    words = re.sub(r"[^\w\s]|_", " ", fold(text))
    return " ".join(_ARTICLES.sub(" ", words).split())


def _pattern(answer: str) -> re.Pattern[str]:
    wanted = fold(answer)
    before = r"(?<!\w)" if _bounds_words(wanted[:1]) else ""
    after = r"(?!\w)" if _bounds_words(wanted[-1:]) else ""
    return re.compile(before + re.escape(wanted) + after)


def _bounds_words(character: str) -> bool:
    """Whether words that hold this character are set apart: Chinese and Japanese are written without spaces."""
    return bool(character) and unicodedata.east_asian_width(character) not in "WF"

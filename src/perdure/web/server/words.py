"""The words of the pages in the language of whoever looks: English as written here, others by catalogue."""

import gettext as library
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path

from babel.dates import format_datetime
from babel.numbers import format_decimal, format_percent

DOMAIN = "perdure"
LANGUAGES = {"en": "English", "ja": "日本語"}
DEFAULT = "en"
# Days before months mean another day elsewhere: English has the order that nobody misreads.
_MOMENT = {"en": "y-MM-dd HH:mm", "ja": "y/MM/dd HH:mm"}
_RANGE = re.compile(r"([a-z]{1,8})(?:-[a-z0-9]{1,8})*(?: *; *q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")
_HEADER = 200
_current: ContextVar[str] = ContextVar("language", default=DEFAULT)


def _(text: str) -> str:
    """The text in the language of this request."""
    return _catalogue(_current.get()).gettext(text)


def ngettext(one: str, many: str, count: int) -> str:
    """The form of a text that fits a count, in the language of this request."""
    return _catalogue(_current.get()).ngettext(one, many, count)


def N_(text: str) -> str:  # noqa: N802 - the name that extractors know
    """The text as it is: marked for the catalogues, put into words where it is shown."""
    return text


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Let the words of the block be those of a language."""
    token = _current.set(language)
    try:
        yield
    finally:
        _current.reset(token)


def language() -> str:
    """The language of this request, as a tag."""
    return _current.get()


@cache
def available() -> tuple[str, ...]:
    """The languages for which there is a catalogue, English first."""
    return tuple(tag for tag in LANGUAGES if tag == DEFAULT or _file(tag).is_file())


def choose(wished: str, header: str) -> str:
    """The language to speak: the one that a user chose, else the first known one that the browser names."""
    return next((tag for tag in (wished, *accepted(header)) if tag in available()), DEFAULT)


def accepted(header: str) -> list[str]:
    """The languages that an `Accept-Language` header (RFC 9110) names, the most wished first; odd parts fall out."""
    found = [_RANGE.fullmatch(part.strip(" \t")) for part in header[:_HEADER].lower().split(",")]
    weighed = [(float(one[2] or 1), one[1]) for one in found if one]
    return [tag for weight, tag in sorted(weighed, key=lambda pair: -pair[0]) if weight > 0]


def moment(when: datetime) -> str:
    """A time as people who speak the language of this request write it, in UTC."""
    spoken = language()
    return f"{format_datetime(when.astimezone(UTC), _MOMENT[spoken], locale=spoken)} UTC"


def whole(count: int) -> str:
    """A count, its thousands grouped as in the language of this request."""
    return format_decimal(count, locale=language())


def hundredths(share: float) -> str:
    """A share as a whole percentage, in the language of this request."""
    return format_percent(share, locale=language())


@cache
def _catalogue(tag: str) -> library.NullTranslations:
    if not _file(tag).is_file():
        return library.NullTranslations()
    with _file(tag).open("rb") as stream:
        return library.GNUTranslations(stream)


def _file(tag: str) -> Path:
    return Path(str(resources.files("perdure.web"))) / "locale" / tag / "LC_MESSAGES" / f"{DOMAIN}.mo"

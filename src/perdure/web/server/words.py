"""The words of the pages in the language of whoever looks: English as written here, others by catalogue."""

import gettext as library
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources
from pathlib import Path

DOMAIN = "perdure"
LANGUAGES = {"en": "English", "ja": "日本語"}
DEFAULT = "en"
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
    given = [part.partition(";")[0].strip().lower()[:2] for part in header[:200].split(",")]
    return next((tag for tag in (wished, *given) if tag in available()), DEFAULT)


@cache
def _catalogue(tag: str) -> library.NullTranslations:
    if not _file(tag).is_file():
        return library.NullTranslations()
    with _file(tag).open("rb") as stream:
        return library.GNUTranslations(stream)


def _file(tag: str) -> Path:
    return Path(str(resources.files("perdure.web"))) / "locale" / tag / "LC_MESSAGES" / f"{DOMAIN}.mo"

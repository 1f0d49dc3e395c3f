"""The words of pages in the language of whoever reads: English as written here, others by catalogue.

The language is that of the block that speaks (`speaking`): of a request in the server, of one page on the command line.
"""

import gettext as library
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from babel import Locale
from babel.numbers import format_decimal, format_percent, get_decimal_symbol, get_group_symbol

from perdure.errors import UnknownNameError

DOMAIN = "perdure"
LANGUAGES = {"en": "English", "ja": "日本語"}
DEFAULT = "en"
_current: ContextVar[str] = ContextVar("language", default=DEFAULT)


def _(text: str) -> str:
    """The text in the language in force."""
    return _catalogue(_current.get()).gettext(text)


def ngettext(one: str, many: str, count: int) -> str:
    """The form of a text that fits a count, in the language in force."""
    return _catalogue(_current.get()).ngettext(one, many, count)


def counted(one: str, many: str, count: int, **values: Any) -> str:
    """The form of a text that fits a count, filled with the count as `count` and with the other values."""
    return ngettext(one, many, count).format(count=whole(count), **values)


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
    """The language in force, as a tag."""
    return _current.get()


@cache
def available() -> tuple[str, ...]:
    """The languages for which there is a catalogue, English first."""
    return tuple(tag for tag in LANGUAGES if tag == DEFAULT or _file(tag).is_file())


def known(wished: str) -> str:
    """The language that was asked for by its tag.

    Raises:
        UnknownNameError: There is no catalogue for it.
    """
    if wished not in available():
        raise UnknownNameError("language", wished, available())
    return wished


def in_turn(*sentences: str) -> str:
    """Whole sentences one after the other, those that are empty left out."""
    return blank().join(sentence for sentence in sentences if sentence)


def blank() -> str:
    """What stands between two sentences: nothing in Japanese, whose stop is wide enough."""
    return "" if language() == "ja" else " "


def joined(parts: Iterable[str]) -> str:
    """Short sentences without their stops as one text, which has no stop either."""
    return _(". ").join(parts)


def listed(names: Iterable[str]) -> str:
    """Names one after the other, with commas."""
    return _(", ").join(names)


def quoted(name: str) -> str:
    """A name in quotation marks."""
    return _("“{name}”").format(name=name)


def whole(count: int) -> str:
    """A count, its thousands grouped as in the language in force."""
    return format_decimal(count, locale=language())


def hundredths(share: float) -> str:
    """A share as a whole percentage, in the language in force."""
    return format_percent(share, locale=language())


def separated(number: str) -> str:
    """A number that is written as Python writes it, with the separators of the language in force."""
    return number.translate(_separators(language()))


def percent_sign() -> str:
    """What stands behind a percentage in the language in force, with the blank before it where there is one."""
    return _percent_sign(language())


@cache
def _separators(tag: str) -> dict[int, str]:
    return str.maketrans({",": get_group_symbol(tag), ".": get_decimal_symbol(tag)})


@cache
def _percent_sign(tag: str) -> str:
    return str(Locale.parse(tag).percent_formats[None].pattern).rpartition("0")[2]


@cache
def _catalogue(tag: str) -> library.NullTranslations:
    if not _file(tag).is_file():
        return library.NullTranslations()
    with _file(tag).open("rb") as stream:
        return library.GNUTranslations(stream)


def _file(tag: str) -> Path:
    return Path(str(resources.files("perdure.web"))) / "locale" / tag / "LC_MESSAGES" / f"{DOMAIN}.mo"

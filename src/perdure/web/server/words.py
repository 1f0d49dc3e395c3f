"""The words of the server's pages: those of the web room, in the language that a request asks for."""

import re
from datetime import UTC, datetime

from babel.dates import format_datetime

from perdure.web.words import (
    DEFAULT,
    LANGUAGES,
    N_,
    _,
    available,
    hundredths,
    language,
    ngettext,
    speaking,
    whole,
)

__all__ = [
    "DEFAULT",
    "LANGUAGES",
    "N_",
    "_",
    "accepted",
    "available",
    "choose",
    "hundredths",
    "language",
    "moment",
    "ngettext",
    "speaking",
    "whole",
]

# Days before months mean another day elsewhere: English has the order that nobody misreads.
_MOMENT = {"en": "y-MM-dd HH:mm", "ja": "y/MM/dd HH:mm"}
_RANGE = re.compile(r"([a-z]{1,8})(?:-[a-z0-9]{1,8})*(?: *; *q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")
_HEADER = 200


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

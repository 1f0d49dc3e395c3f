"""Texts as they may stand in a request: tidied, or refused because they are blank, too long or hide something.

Patterns are written as escapes, so that this file holds none of the characters it speaks of.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

# Spaces that people leave by accident. Control characters are not among them: those are refused.
_BLANKS = " \t\r\n\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_INVISIBLE = r"\u00ad\u061c\u180e\u200b-\u200f\u2060-\u2064\ufeff\U000e0000-\U000e007f"
_UNSEEN = re.compile(f"[{_INVISIBLE}]")

Fault = tuple[re.Pattern[str], str]

ANYWHERE: tuple[Fault, ...] = (
    (re.compile(r"[\ud800-\udfff]"), "half of a surrogate pair, which is no character"),
    (re.compile(r"\ufffd"), "the trace of a text that was decoded wrongly; restore the original"),
    (re.compile(r"[\u202a-\u202e\u2066-\u2069]"), "which changes the direction of text unseen; delete it"),
    (re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]"), "a control character; delete it"),
)
ONE_LINE: tuple[Fault, ...] = (
    *ANYWHERE,
    (re.compile(r"[\t\n]"), "a tab or line break, which may stand in prompts only"),
)
# Joiners are ordinary spelling in Arabic and Indic scripts (U+0600 to U+0DFF), and nowhere else in a name.
SUBJECT: tuple[Fault, ...] = (
    *ONE_LINE,
    (
        re.compile(rf"(?<![\u0600-\u0dff])[\u200c\u200d]|(?![\u200c\u200d])[{_INVISIBLE}]"),
        "which has no width and cannot be seen; delete it",
    ),
)


@dataclass(frozen=True)
class Wording:
    """The rules for one kind of text.

    Attributes:
        limit: The longest text allowed, in characters.
        faults: Patterns that must not occur, each with the reason given.
    """

    limit: int
    faults: tuple[Fault, ...] = ANYWHERE

    def clean(self, given: object) -> object:
        """`given` stripped and in NFC; what is not text is passed on for the type check.

        Raises:
            ValueError: The text is blank, too long or holds a character that is refused.
        """
        if not isinstance(given, str):
            return given
        text = given.replace("\r\n", "\n").strip(_BLANKS)
        # The length comes first: normalising takes quadratic time on long runs of combining marks.
        self._refuse_long(text)
        # Of all that is refused only U+FFFD prints, so most texts need no closer look.
        if not text.isprintable() or "\ufffd" in text:
            self._refuse_faults(text)
        if not text:
            raise ValueError("is blank" if given else "is empty")
        text = unicodedata.normalize("NFC", text)
        self._refuse_long(text)
        return text

    def _refuse_faults(self, text: str) -> None:
        for pattern, why in self.faults:
            if found := pattern.search(text):
                raise ValueError(f"holds {name_character(found.group())}, {why}")
        if not _bare(text).strip(_BLANKS):
            raise ValueError("is blank")

    def _refuse_long(self, text: str) -> None:
        if len(text) > self.limit:
            raise ValueError(f"has {len(text)} characters; at most {self.limit} are allowed")


def name_character(character: str) -> str:
    """The code point and the Unicode name: `U+202E RIGHT-TO-LEFT OVERRIDE`."""
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X}" + (f" {name}" if name else "")


def fill(prompt: str, subject: str) -> str:
    """`prompt` with every `{}` replaced by the subject, also where the subject stands in it besides.

    A subject that holds `{}` itself is looked for in the prompt first, so that a filled prompt that is written and
    read again stays as it is.
    """
    return prompt if "{}" in subject and subject in prompt else prompt.replace("{}", subject)


def explain_absence(subject: str, prompt: str) -> str:
    """Why `subject` is not found in `prompt`: another case, other spacing, unseen characters, or absent."""
    shown = shorten(subject)
    if _bare(subject) in _bare(prompt):
        return f"holds the subject {shown} only with unseen characters inside; delete them"
    if fold(subject, case=False) in fold(prompt, case=False):
        return f"holds the subject {shown} only with other spacing; write both alike"
    if fold(subject) in fold(prompt):
        return f"holds the subject {shown} only in another case; write both alike"
    return f"does not hold the subject {shown}; write it there, or {{}} where it belongs"


def fold(text: str, *, case: bool = True) -> str:
    """`text` in NFC with spaces collapsed and, unless `case` is false, upper and lower case made equal."""
    chosen = text.casefold() if case else text
    return " ".join(unicodedata.normalize("NFC", chosen).split())


def _bare(text: str) -> str:
    return _UNSEEN.sub("", text)


def shorten(value: object, limit: int = 60) -> str:
    """`value` on one printable line of about `limit` characters, with everything unseen escaped."""
    if isinstance(value, str):
        cut = value[:limit]
        return f"'{escape(cut)}'" + ("…" if len(value) > limit else "")
    if isinstance(value, Mapping | list | tuple):
        return f"{name_kind(value)} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    return json.dumps(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def escape(text: str) -> str:
    """`text` with every character that does not print, and U+FFFD, written as an escape."""
    if text.isprintable() and "\ufffd" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character.isprintable() and character != "\ufffd":
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "text"),
    (bool, "true or false"),
    ((int, float), "a number"),
    (Mapping, "an object"),
    ((list, tuple), "a list"),
    (type(None), "null"),
)


def name_kind(value: object) -> str:
    """What `value` is, in the words of JSON: text, a number, a list, an object, null."""
    return next((name for kind, name in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")

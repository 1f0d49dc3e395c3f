"""Text from a model or a file, made safe to look at: what cannot be seen is spelt out.

Escaping for HTML is not done here; the templates and `json_for_script` do it.
"""

import json
import unicodedata
from typing import Any

_HARMLESS = frozenset("\n\t")
# Signs that reorder the letters around them: an answer could otherwise read as its opposite.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FOR_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def _hidden(sign: str) -> bool:
    return sign not in _HARMLESS and (sign in _REORDERING or unicodedata.category(sign) in ("Cc", "Cs"))


def visible(text: str) -> str:
    """The text with control signs, lone surrogates and reordering signs spelt out, such as ‹U+202E›."""
    if text.isprintable():
        return text
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(f"‹U+{ord(sign):04X}›" if _hidden(sign) else sign for sign in unified)


def clip(text: str, limit: int) -> str:
    """At most `limit` characters of the text, cut between words where it can be, then an ellipsis."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    cut = head.rfind(" ")
    return f"{head[:cut] if cut > limit // 2 else head}…"


def columns(text: str) -> int:
    """How wide the text is, in letters: signs of Chinese, Japanese and Korean take the room of two (UAX 11)."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def squeeze(text: str, limit: int) -> str:
    """At most `limit` characters of the text, with an ellipsis in the middle: names often differ at their ends."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) * 2 // 5
    return f"{text[: limit - 1 - tail].rstrip()}…{text[-tail:].lstrip()}"


def one_line(text: str) -> str:
    """The text with every run of white space as one blank."""
    return " ".join(text.split())


def capital(text: str) -> str:
    """The text with a capital first letter, unless its first word is a name such as "lm-eval"."""
    first = text.split(" ", 1)[0].rstrip(":,")
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text


def json_for_script(data: Any) -> str:
    """The data as JSON that can stand inside a script element, whatever its strings hold.

    Raises:
        ValueError: A number is infinite or not a number.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.translate(_FOR_SCRIPT)

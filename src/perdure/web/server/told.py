"""What lower rooms say in English, told in the language of the request; what is not known stays as it is.

Those rooms know no language: their sentences are listed here as templates, and a text that has the shape of one is
its translation filled with the same values. Matching goes from left to right, once, so its cost is bounded.
"""

from collections.abc import Mapping
from functools import cache
from string import Formatter

from perdure.web.server.sentences import ALL, NESTED, OPTIONAL
from perdure.web.server.words import DEFAULT, _, language

_LONGEST, _HEAD, _DEEPEST = 4000, 120, 4


def told(text: str) -> str:
    """The text in the language of the request, line by line; English where nobody translated it."""
    if language() == DEFAULT or len(text) > _LONGEST:
        return text
    return "\n".join(_line(line) for line in text.split("\n"))


def _line(line: str) -> str:
    bare = line.strip()
    said = _known(bare) or _after_place(bare)
    return line if said is None else line.replace(bare, said, 1)


def _after_place(text: str, depth: int = 0) -> str | None:
    """A sentence after the place that it is about, as in `facts.jsonl:12: prompt: is missing`."""
    place, colon, rest = text.partition(": ")
    if not colon or len(place) > _HEAD or depth > _DEEPEST:
        return None
    said = _known(rest) or _after_place(rest, depth + 1)
    return None if said is None else f"{place}: {said}"


def _known(text: str, depth: int = 0) -> str | None:
    """The translation of one sentence; None if it is not on the list."""
    for template in ALL if text else ():
        found = fields(template, text)
        filled = None if found is None else _nested(found, depth)
        if filled is not None:
            return _(template).format_map(filled)
    return None


def _nested(found: Mapping[str, str], depth: int) -> dict[str, str] | None:
    """The values, those that are sentences themselves translated; None if one of these is not known."""
    filled = {name: _(value) if name in OPTIONAL and value in ALL else value for name, value in found.items()}
    for name in NESTED & filled.keys():
        said = _known(filled[name], depth + 1) if depth < _DEEPEST else None
        if said is None:
            return None
        filled[name] = said
    return filled


def fields(template: str, text: str) -> dict[str, str] | None:
    """What stands in a text where a template has its fields; None if it does not have the template's shape."""
    first, *rest = parts(template)
    if not text.startswith(first[0]) or not text.endswith(rest[-1][0] if rest else first[0]):
        return None
    found: dict[str, str] = {}
    at, name = len(first[0]), first[1]
    for number, (literal, following) in enumerate(rest, 1):
        end = len(text) - len(literal) if number == len(rest) else text.find(literal, at + 1)
        if end <= at:
            return None
        found[name] = text[at:end]
        at, name = end + len(literal), following
    return found if at == len(text) else None


@cache
def parts(template: str) -> tuple[tuple[str, str], ...]:
    """A template as its literal texts, each with the name of the field after it; the last one has none."""
    found, literal = [], ""
    for text, name, _format, _conversion in Formatter().parse(template):
        literal += text
        if name:
            found.append((literal, name))
            literal = ""
    return (*found, (literal, ""))

"""What lower rooms say in English, told in the language in force; what is not known stays as it is.

Those rooms know no language, and what they said is kept: reports, ledger rows and requests hold their English. So
their sentences are listed as templates, and a text that has the shape of one is its translation filled with the same
values. Matching goes from left to right, once, so its cost is bounded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from string import Formatter

from perdure.web.words import DEFAULT, _, language

_LONGEST, _HEAD, _DEEPEST = 4000, 120, 4


@dataclass(frozen=True)
class Sayings:
    """The sentences that some lower rooms say.

    Attributes:
        texts: The templates, those that are told from others by more words first.
        nested: Fields that hold a sentence of the list: without one the text is not known.
        optional: Fields that hold a sentence of the list, or a value that stays as it is.
    """

    texts: tuple[str, ...]
    nested: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()

    def told(self, text: str) -> str:
        """The text in the language in force, line by line; English where nobody translated it."""
        if language() == DEFAULT or len(text) > _LONGEST:
            return text
        return "\n".join(self._line(line) for line in text.split("\n"))

    def _line(self, line: str) -> str:
        bare = line.strip()
        said = self._known(bare) or self._after_place(bare)
        return line if said is None else line.replace(bare, said, 1)

    def _after_place(self, text: str, depth: int = 0) -> str | None:
        """A sentence after the place that it is about, as in `facts.jsonl:12: prompt: is missing`."""
        place, colon, rest = text.partition(": ")
        if not colon or len(place) > _HEAD or depth > _DEEPEST:
            return None
        said = self._known(rest) or self._after_place(rest, depth + 1)
        return None if said is None else f"{place}: {said}"

    def _known(self, text: str, depth: int = 0) -> str | None:
        """The translation of one sentence; None if it is not on the list."""
        for template in self.texts if text else ():
            found = fields(template, text)
            filled = None if found is None else self._nested(found, depth)
            if filled is not None:
                return _(template).format_map(filled)
        return None

    def _nested(self, found: Mapping[str, str], depth: int) -> dict[str, str] | None:
        """The values, those that are sentences themselves translated; None if one that must be known is not."""
        filled = dict(found)
        for name in filled.keys() & (self.nested | self.optional):
            said = self._known(filled[name], depth + 1) if depth < _DEEPEST else None
            if said is None and name in self.nested:
                return None
            filled[name] = filled[name] if said is None else said
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

"""A text sent piece by piece while it is written: only what no later token can change, and nothing from a stop on."""

from collections.abc import Sequence

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what tokenizers write for the first bytes of a character


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stops."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


def settled(text: str, stops: Sequence[str]) -> str:
    """The beginning of the text that stays, whatever follows: no broken character and no half stop at its end."""
    text = text.rstrip(_UNFINISHED)
    longest = max(map(len, stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return text[:-length]
    return text


class Unfolding:
    """What of a growing text can be sent."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._sent = ""
        self.stopped = False

    def more(self, text: str) -> str:
        """What can be sent now of the text so far, beyond what was."""
        cut = before_stop(text, self._stops)
        self.stopped = len(cut) < len(text)
        return self._next(cut if self.stopped else settled(text, self._stops))

    def rest(self, text: str) -> str:
        """What is left to send of the whole text."""
        cut = before_stop(text, self._stops)
        self.stopped = self.stopped or len(cut) < len(text)
        return self._next(cut)

    def _next(self, text: str) -> str:
        if not text.startswith(self._sent):  # the tokenizer took something back: what was sent stays
            return ""
        piece, self._sent = text[len(self._sent) :], text
        return piece

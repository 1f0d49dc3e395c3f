"""What lower rooms say in English to the server's pages, told in the language of the request."""

from perdure.web.server.sentences import ALL, NESTED, OPTIONAL
from perdure.web.told import Sayings

_SAYINGS = Sayings(ALL, NESTED, OPTIONAL)


def told(text: str) -> str:
    """The text in the language of the request, line by line; English where nobody translated it."""
    return _SAYINGS.told(text)

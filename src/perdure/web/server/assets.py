"""The files that pages load: a fixed list, read once, named by their contents so that browsers may keep them."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache

from perdure.web.page import inline

_KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_FILES = {
    "report.css": "report.css",
    "report.js": "report.js",
    "server.css": "server.css",
    "server.js": "server.js",
    "icon.svg": "icon.svg",
    "htmx.js": "vendor/htmx.min.js",
    "vega.js": "vendor/vega.min.js",
    "vega-lite.js": "vendor/vega-lite.min.js",
    "vega-embed.js": "vendor/vega-embed.min.js",
}


@dataclass(frozen=True)
class Asset:
    """One file: what it is, its bytes compressed, and a short name of its contents."""

    kind: str
    packed: bytes
    mark: str


@cache
def asset(name: str) -> Asset | None:
    """The file of a name on the list; None for any other name."""
    if name not in _FILES:
        return None
    data = inline(_FILES[name]).encode()
    mark = hashlib.sha256(data).hexdigest()[:16]
    return Asset(_KINDS[name.rpartition(".")[2]], gzip.compress(data, mtime=0), mark)


def address(name: str) -> str:
    """Where a file of the list is found.

    Raises:
        KeyError: It is not on the list.
    """
    found = asset(name)
    if found is None:
        raise KeyError(name)
    return f"/static/{name}?v={found.mark}"

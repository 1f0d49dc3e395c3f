"""Update a foundation model without making it forget: every change is measured, restrained, approved and undoable.

from perdure import Workspace
ws = Workspace.open("shop")
candidate = ws.edit("facts.jsonl", editor="memit", restraint="prune")
report = ws.measure(candidate)
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.deltas import Delta
    from perdure.errors import PerdureError
    from perdure.measuring import Report
    from perdure.requests import Fact
    from perdure.workspace import Version, Workspace

_PUBLIC = {  # read when asked for, so that importing perdure does not import torch
    "Delta": "perdure.deltas",
    "Fact": "perdure.requests",
    "PerdureError": "perdure.errors",
    "Report": "perdure.measuring",
    "Version": "perdure.workspace",
    "Workspace": "perdure.workspace",
}

__version__: str
__all__ = ["Delta", "Fact", "PerdureError", "Report", "Version", "Workspace"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("perdure")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)

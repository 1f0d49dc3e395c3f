"""The folder that remembers: versions, deltas, ledger, aliases, and what is done with them."""

from perdure.workspace.archive import Archive
from perdure.workspace.records import Version
from perdure.workspace.runs import EditPlan, Settings
from perdure.workspace.workspace import Workspace

__all__ = ["Archive", "EditPlan", "Settings", "Version", "Workspace"]

"""Evidence: all that an auditor needs to judge one version, in one signed pack that is checked without a network."""

from perdure.evidence.checking import PackCheck, check_pack
from perdure.evidence.packing import Exported, export_pack

__all__ = ["Exported", "PackCheck", "check_pack", "export_pack"]

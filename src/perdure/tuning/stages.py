"""What of a network is held: its blocks, or the stages that an encoder says it has."""

from typing import Any

from perdure.models import layout_of
from perdure.models.adapters import bare
from perdure.tuning.forward import Taps


def stages_of(network: Any) -> Taps:
    """The outputs of a network's stages in depth order, by name; a decoder's blocks, all before the final norm.

    A network that is no decoder gives its own as `stages()`.
    """
    own = getattr(bare(network), "stages", None)
    if own is not None:
        found: Taps = own()
        return found
    return {f"block {layer}": (block, "output") for layer, block in enumerate(layout_of(network).blocks)}

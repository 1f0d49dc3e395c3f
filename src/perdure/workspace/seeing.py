"""What a version's model sees with, where something is to be seen."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perdure.errors import ModelError
from perdure.requests.tasks import Example
from perdure.tuning.shown import has_pictures

if TYPE_CHECKING:
    from perdure.workspace.records import Version
    from perdure.workspace.workspace import Workspace


def processor_for(shop: "Workspace", version: "Version", examples: Iterable[Example]) -> Any | None:
    """The processor that reads these examples; None where the version's model reads text alone.

    A processor may need a library that is not here. Texts do without it.

    Raises:
        ModelError: An example shows an image, and the processor cannot be loaded.
    """
    try:
        return shop.processor(version)
    except ModelError:
        if any(map(has_pictures, examples)):
            raise
        return None

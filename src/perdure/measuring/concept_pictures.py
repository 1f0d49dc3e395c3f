"""An item of a probe set as a report shows it: a text cut short, or a small picture that travels with the page."""

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.requests.concepts import Labelled

TEXT_LIMIT = 300
SIDE = 48
_QUALITY = 80


def thumbnail(image: Any) -> str:
    """A picture of at most 48 by 48 as a data: address, about 2 kB; of a smaller one its own size."""
    from perdure.models.encoder_inputs import as_picture

    small = as_picture(image).copy()
    small.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def item_shown(labelled: "Labelled", place: int) -> tuple[str, str]:
    """The name of a test item and its picture: of a text the text itself and none."""
    item = labelled.items[place]
    if isinstance(item, str):
        return (item if len(item) <= TEXT_LIMIT else f"{item[: TEXT_LIMIT - 1]}…"), ""
    return labelled.items.places[place], thumbnail(item)

"""Settings as people give them, checked."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perdure.errors import SettingError

M = TypeVar("M", bound=BaseModel)
_SAID = {"extra_forbidden": "there is no such setting", "tuple_type": "must be a list, such as [4,5]"}


def checked(kind: type[M], given: Mapping[str, Any], what: str) -> M:
    """The settings of something that is no registered method, checked.

    Args:
        kind: The model of the settings.
        given: From their names to their values.
        what: What they are the settings of, for the message.

    Raises:
        SettingError: A setting that does not exist or is out of range.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(kind.model_fields)
        raise SettingError(f"{what}: {where}: {said_of(first)}. Settings: {known}") from error


def said_of(fault: ErrorDetails) -> str:
    """What is wrong with one setting, in a user's words where pydantic has its own."""
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"]).removesuffix(".")
    return _SAID.get(fault["type"], fault["msg"])

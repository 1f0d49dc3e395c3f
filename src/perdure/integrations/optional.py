"""Packages that are installed on request only."""

import importlib
from typing import Any

from perdure.errors import PerdureError


def optional(package: str, extra: str) -> Any:
    """A package that comes with an extra of perdure.

    Raises:
        PerdureError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise PerdureError(f"this needs the package {package}: pip install 'perdure[{extra}]' ({error})") from error

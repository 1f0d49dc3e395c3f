"""The rows of the table: which editor, with which settings, and what happens between batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from perdure.deltas import Delta
from perdure.errors import UnknownNameError
from perdure.registry import editors, restraints

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "published": ("prune", {"form": "published"}),
    "clamped": ("prune", {"form": "clamped"}),
    "scale_free": ("prune", {"form": "scale_free"}),
}
"""From the name of a restraint's form to the registered restraint and its settings."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: What the command line calls it.
        label: What the table calls it.
        editor: A registered editor.
        settings: Its settings, where they differ from the defaults.
        keeps_keys: Whether each batch is given the keys of the batches before it.
        batch_size: Facts solved together; the benchmark's choice when not given.
        inside: The form of restraint under which each batch finds the model; the accumulated update is
            restrained before every batch.
        forms: The forms of restraint under which the model is measured.
        announced: How many facts the editor is told that the model will carry; those so far when not given.
    """

    name: str
    label: str
    editor: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    keeps_keys: bool = True
    batch_size: int | None = None
    inside: str = "none"
    forms: tuple[str, ...] = tuple(FORMS)
    announced: int = 0

    def config(self, seed: int) -> BaseModel:
        """The editor's resolved settings; its own seed, where it has one, is the run's."""
        config = editors.get(self.editor).config
        own = {"seed": seed} if "seed" in config.model_fields else {}
        return config.model_validate({**own, **self.settings})


ROWS = (
    Row("fine_tuning", "plain fine-tuning", "fine_tuning"),
    Row("fine_tuning_constrained", "FT-constrained", "fine_tuning_constrained"),
    Row("lora", "LoRA", "lora"),
    Row("f_learning", "F-Learning", "f_learning"),
    Row("rome", "ROME as published (one at a time, no earlier keys)", "rome", keeps_keys=False, batch_size=1),
    Row("rome_keys", "ROME with earlier keys", "rome"),
    Row("memit", "MEMIT (no earlier keys)", "memit", keeps_keys=False),
    Row("memit_keys", "MEMIT with earlier keys", "memit"),
    Row("memit_500", "MEMIT with earlier keys, told of 500 facts (our default)", "memit", announced=500),
    Row("memit_inside", "MEMIT with earlier keys, clamped inside", "memit", inside="clamped", forms=("clamped",)),
    Row("alphaedit", "AlphaEdit", "alphaedit"),
    Row("geoedit", "GeoEdit", "geoedit"),
)


def row_named(name: str) -> Row:
    """The row of this name.

    Raises:
        UnknownNameError: There is none.
    """
    found = {row.name: row for row in ROWS}
    if name not in found:
        raise UnknownNameError("row", name, found)
    return found[name]


def restrain(delta: Delta, ceilings: Mapping[str, float], form: str) -> Delta:
    """The accumulated update under a form of restraint.

    Args:
        delta: What was solved so far.
        ceilings: σ_max of each changed matrix of the base.
        form: A name of `FORMS`.
    """
    name, settings = FORMS[form]
    method = restraints.get(name)
    restrained: Delta = method.call(delta, ceilings, method.config.model_validate(settings))
    return restrained

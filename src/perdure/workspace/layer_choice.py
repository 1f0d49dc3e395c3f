"""Which layers an edit changes, and how they were chosen, for the record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from perdure.editing.layers import check_layers, default_layers
from perdure.editing.presets import preset_settings
from perdure.errors import SettingError
from perdure.registry import editors
from perdure.workspace.tracing import known_trace

if TYPE_CHECKING:
    from perdure.workspace.records import Version
    from perdure.workspace.runs import Settings
    from perdure.workspace.workspace import Workspace

AskedLayers = str | Sequence[int] | None
"""`traced`, `depth`, layer numbers, or None for what the settings, the preset or the editor say."""


@dataclass(frozen=True)
class LayerChoice:
    """Layers for one editor.

    Attributes:
        setting: What to set in the editor's config; empty where nothing was asked for.
        record: How it was chosen, for the recipe.
    """

    setting: Mapping[str, Any]
    record: Mapping[str, Any]


def choose(shop: "Workspace", parent: "Version", settings: "Settings") -> LayerChoice:
    """The layers that the settings ask for, as the editor's own setting; no model is loaded.

    Raises:
        SettingError: The editor has no such setting, it is given twice, or there is no trace to choose from.
        UnknownNameError: No such editor or preset.
    """
    method, asked = editors.get(settings.editor), settings.layers
    name = next((name for name in ("layers", "layer") if name in method.config.model_fields), "")
    if asked is None:
        return LayerChoice({}, {"by": _by_settings(settings, name)})
    if not name:
        raise SettingError(f"{method.name} has no setting for layers; leave the layers out, or choose another editor")
    if name in settings.config:
        given = settings.config[name]
        raise SettingError(f"the layers are given twice: {asked!r}, and {name}={given!r} among the settings")
    if asked == "traced":
        return _traced(shop, name)
    if asked == "depth":
        return _choice(name, default_layers(shop.layout(parent)), "depth")
    if isinstance(asked, str):
        raise SettingError(f"layers are traced, depth, or numbers such as 4,5,6; given {asked!r}")
    return _choice(name, asked, "given")


def check_chosen(shop: "Workspace", parent: "Version", config: BaseModel) -> None:
    """Check that the model has the layers that an editor's settings name; no weight is read.

    Raises:
        SettingError: It does not.
    """
    one = getattr(config, "layer", None)
    named = getattr(config, "layers", None) or ([] if one is None else [one])
    if named:
        check_layers(named, shop.layout(parent))


def _by_settings(settings: "Settings", name: str) -> str:
    """Who says which layers, where they are not asked for by themselves: the settings, the preset or the editor."""
    if settings.config.get(name) is not None:
        return "given"
    published = preset_settings(settings.preset, settings.editor) if settings.preset else {}
    return "preset" if name in published else "default"


def _traced(shop: "Workspace", name: str) -> LayerChoice:
    trace = known_trace(shop)
    if trace is None:
        raise SettingError("the base was not traced yet; run perdure trace first")
    if trace.layer is None:
        raise SettingError("the trace shows no effect of any MLP at the subject's last token; use layers=depth")
    chosen = trace.layers if name == "layers" else [trace.layer]
    made = _choice(name, chosen, "traced")
    return LayerChoice(made.setting, {**made.record, "trace": trace.id})


def _choice(name: str, layers: Sequence[int], by: str) -> LayerChoice:
    if name == "layer" and by == "given" and len(layers) != 1:
        raise SettingError(f"this editor changes one layer; given {list(layers)}")
    setting = list(layers) if name == "layers" else layers[0]
    return LayerChoice({name: setting}, {"by": by, name: setting})

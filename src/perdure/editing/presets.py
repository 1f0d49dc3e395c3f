"""Published settings of editors, found by the name of the model that they were published for.

A preset is data: what authors, or those who ported a method, wrote into the settings files of their code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.errors import SettingError, UnknownNameError

if TYPE_CHECKING:
    from perdure.models import Layout

_ROME = "kmeng01/rome"
_MEMIT = "kmeng01/memit"
_ALPHAEDIT = "jianghoucheng/AlphaEdit"
_EASYEDIT = "zjunlp/EasyEdit"


@dataclass(frozen=True)
class Shape:
    """The sizes by which a model is recognised.

    Attributes:
        layers: Decoder blocks.
        d_model: Size of the hidden state.
        d_ff: Size of the MLP's inner state.
        heads: Query heads.
        kv_heads: Key-value heads.
    """

    layers: int
    d_model: int
    d_ff: int
    heads: int
    kv_heads: int

    @classmethod
    def of(cls, layout: "Layout") -> "Shape":
        """The shape of a model."""
        return cls(len(layout), layout.d_model, layout.d_ff, layout.heads, layout.kv_heads)


@dataclass(frozen=True)
class Published:
    """The settings of one editor for one model.

    Attributes:
        source: The repository whose `hparams` folder holds them.
        settings: In the editor's own names.
    """

    source: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """What was published for one model.

    Attributes:
        name: What users type.
        model: The model's name, as its makers write it.
        shape: Its sizes.
        published: From an editor's name to its settings.
    """

    name: str
    model: str
    shape: Shape
    published: Mapping[str, Published]


def _rome(source: str, layer: int, steps: int, weight_decay: float) -> Published:
    return Published(source, {"layer": layer, "values": _values(steps, 0.5, 4.0, weight_decay)})


def _spread(source: str, layers: range, values: Mapping[str, float], **own: float) -> Published:
    return Published(source, {"layers": list(layers), "values": values, **own})


def _values(steps: int, learning_rate: float, clamp: float, weight_decay: float) -> dict[str, Any]:
    return {
        "steps": steps,
        "learning_rate": learning_rate,
        "betas": (0.9, 0.999),
        "clamp": clamp,
        "weight_decay": weight_decay,
        "kl_weight": 0.0625,
    }


_ABSOLUTE = {"threshold": 2e-2, "l2": 10.0}
_GPT2_XL, _GPT_J = _values(20, 0.5, 0.75, 0.5), _values(25, 0.5, 0.75, 0.5)
_LLAMA_2, _LLAMA_3 = _values(25, 0.5, 4.0, 1e-3), _values(25, 0.1, 0.75, 0.5)

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "gpt2-xl",
            "GPT-2-XL",
            Shape(layers=48, d_model=1600, d_ff=6400, heads=25, kv_heads=25),
            {
                "rome": _rome(_ROME, 17, 20, 0.5),
                "memit": _spread(_ALPHAEDIT, range(13, 18), _GPT2_XL, moment_weight=20_000.0),
                "alphaedit": _spread(_ALPHAEDIT, range(13, 18), _GPT2_XL, **_ABSOLUTE),
            },
        ),
        Preset(
            "gpt-j-6b",
            "GPT-J-6B",
            Shape(layers=28, d_model=4096, d_ff=16384, heads=16, kv_heads=16),
            {
                "rome": _rome(_EASYEDIT, 5, 20, 0.5),
                "memit": _spread(_MEMIT, range(3, 9), _GPT_J, moment_weight=15_000.0),
                "alphaedit": _spread(_ALPHAEDIT, range(3, 9), _GPT_J, **_ABSOLUTE),
            },
        ),
        Preset(
            "llama-2-7b",
            "Llama-2-7B",
            Shape(layers=32, d_model=4096, d_ff=11008, heads=32, kv_heads=32),
            {  # none for AlphaEdit: its authors say that theirs do not fit (issues 2 and 4 of their repository)
                "rome": _rome(_EASYEDIT, 5, 25, 1e-3),
                "memit": _spread(_EASYEDIT, range(4, 9), _LLAMA_2, moment_weight=15_000.0),
            },
        ),
        Preset(
            "llama-3-8b",
            "Llama-3-8B",
            Shape(layers=32, d_model=4096, d_ff=14336, heads=32, kv_heads=8),
            {
                "rome": _rome(_ALPHAEDIT, 5, 25, 1e-3),
                "memit": _spread(_ALPHAEDIT, range(4, 9), _LLAMA_3, moment_weight=15_000.0),
                "alphaedit": _spread(_ALPHAEDIT, range(4, 9), _LLAMA_3, **_ABSOLUTE),
            },
        ),
    )
}


def preset_settings(name: str, editor: str) -> Mapping[str, Any]:
    """The published settings of an editor.

    Raises:
        UnknownNameError: No preset of this name; the known ones are listed.
        SettingError: It says nothing about this editor; the presets that do are listed.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    published = PRESETS[name].published
    if editor not in published:
        others = ", ".join(preset.name for preset in presets_of(editor)) or "none"
        raise SettingError(
            f"preset {name} has no settings for {editor}, only for {', '.join(published)}. Presets with settings for "
            f"{editor}: {others}. Without --preset its defaults are used"
        )
    return published[editor].settings


def presets_of(editor: str) -> tuple[Preset, ...]:
    """The presets that hold settings of an editor."""
    return tuple(preset for preset in PRESETS.values() if editor in preset.published)


def preset_for(layout: "Layout") -> Preset | None:
    """The preset whose model has exactly this shape, for a hint; other models may share the shape."""
    shape = Shape.of(layout)
    return next((preset for preset in PRESETS.values() if preset.shape == shape), None)

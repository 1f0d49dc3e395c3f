"""The layout of a decoder: its blocks, projections and heads, found by which modules exist and their shapes.

Shape suffixes: O outputs and I inputs of a projection, R rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from perdure.errors import ModelError
from perdure.models.adapters import bare, bare_layer, parameters_by_name


@dataclass(frozen=True)
class _Family:
    """The child modules by which an attention or MLP module is recognised, and the one that writes out."""

    children: frozenset[str]
    output: str


_ATTENTION = (
    _Family(frozenset({"q_proj", "k_proj", "v_proj", "o_proj"}), "o_proj"),  # Llama, Mistral, Qwen, Granite
    _Family(frozenset({"qkv_proj", "o_proj"}), "o_proj"),  # Phi-3
    _Family(frozenset({"q_proj", "k_proj", "v_proj", "dense"}), "dense"),  # Phi-1, Phi-2
    _Family(frozenset({"q_proj", "k_proj", "v_proj", "out_proj"}), "out_proj"),  # GPT-J, GPT-Neo
    _Family(frozenset({"c_attn", "c_proj"}), "c_proj"),  # GPT-2
    _Family(frozenset({"query_key_value", "dense"}), "dense"),  # GPT-NeoX, Falcon, BLOOM
)
_MLP = (
    _Family(frozenset({"gate_proj", "up_proj", "down_proj"}), "down_proj"),
    _Family(frozenset({"gate_up_proj", "down_proj"}), "down_proj"),
    _Family(frozenset({"c_fc", "c_proj"}), "c_proj"),
    _Family(frozenset({"fc_in", "fc_out"}), "fc_out"),
    _Family(frozenset({"fc1", "fc2"}), "fc2"),
    _Family(frozenset({"dense_h_to_4h", "dense_4h_to_h"}), "dense_4h_to_h"),
)


@dataclass(frozen=True)
class Projection:
    """One linear map and how its matrix is stored.

    Attributes:
        name: The tensor's name in the checkpoint.
        module: The module; its `weight` is [O, I], or [I, O] for GPT-2's Conv1D.
        transposed: Whether the stored tensor is [I, O].
    """

    name: str
    module: Any
    transposed: bool

    @property
    def d_in(self) -> int:
        """The size of the input."""
        return int(self.module.weight.shape[0 if self.transposed else 1])

    @property
    def d_out(self) -> int:
        """The size of the output."""
        return int(self.module.weight.shape[1 if self.transposed else 0])

    @property
    def matrix(self) -> Tensor:
        """The weight as [O, I], whichever way it is stored; a view."""
        weight: Tensor = self.module.weight.detach()
        if hasattr(weight, "full_tensor"):  # sharded over processes: all of them ask together
            weight = weight.full_tensor()
        return weight.T if self.transposed else weight

    def stored(self, left_OR: Tensor, right_RI: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of a change of `matrix`, turned to the way the tensor is stored."""
        return (right_RI.T, left_OR.T) if self.transposed else (left_OR, right_RI)


@dataclass(frozen=True)
class Layout:
    """Where a decoder keeps what perdure works on; index l is decoder block l.

    Of a model that also reads images it is the language part; the vision tower is no part of it.

    Attributes:
        blocks: The decoder blocks.
        mlps: The MLP of each block.
        mlp_out: The MLP's down-projection of each block.
        attention_in: The attention's input projections of each block, in the order of their names: the key's, the
            query's and the value's, or the one that makes all three.
        attention_out: The attention's output projection of each block.
        mlp_matrices: All projections of each block's MLP.
        heads: Query heads of a block.
        kv_heads: Key-value heads of a block (fewer under grouped-query attention).
        head_dim: Size of one head's slice of the output projection's input.
        d_model: Size of the hidden state.
    """

    blocks: tuple[Any, ...]
    mlps: tuple[Any, ...]
    mlp_out: tuple[Projection, ...]
    attention_in: tuple[tuple[Projection, ...], ...]
    attention_out: tuple[Projection, ...]
    mlp_matrices: tuple[tuple[Projection, ...], ...]
    heads: int
    kv_heads: int
    head_dim: int
    d_model: int

    @property
    def d_ff(self) -> int:
        """The size of the MLP's inner state."""
        return self.mlp_out[0].d_in

    def __len__(self) -> int:
        return len(self.blocks)


_FOUND: WeakKeyDictionary[Any, Layout] = WeakKeyDictionary()


def layout_of(model: Any) -> Layout:
    """The layout of a decoder model, found once per model object; adapter layers are looked through.

    Raises:
        ModelError: The structure is not understood; the message says which part.
    """
    inside = bare(model)
    if inside not in _FOUND:
        _FOUND[inside] = _find(inside)
    return _FOUND[inside]


def _find(model: Any) -> Layout:
    prefix, blocks = _find_blocks(model)
    config = model.config.get_text_config()
    attentions, mlps = [], []
    for index, block in enumerate(blocks):
        place = f"{prefix}.{index}"
        _refuse_fused_experts(place, block)
        attentions.append(_find_part(place, block, _ATTENTION, "attention with an output projection"))
        mlps.append(_find_part(place, block, _MLP, "MLP with a down-projection"))
    attention_out = tuple(_projection(f"{name}.{family.output}", module) for name, module, family in attentions)
    heads = int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or attention_out[0].d_in // heads)
    if heads * head_dim != attention_out[0].d_in:
        raise ModelError(
            f"{attention_out[0].name} reads {attention_out[0].d_in} numbers, which {heads} heads of {head_dim} "
            "do not fill; heads cannot be separated"
        )
    return Layout(
        blocks=tuple(blocks),
        mlps=tuple(module for _, module, _ in mlps),
        mlp_out=tuple(_projection(f"{name}.{family.output}", module) for name, module, family in mlps),
        attention_in=tuple(
            tuple(_projection(f"{name}.{child}", module) for child in sorted(family.children - {family.output}))
            for name, module, family in attentions
        ),
        attention_out=attention_out,
        mlp_matrices=tuple(
            tuple(_projection(f"{name}.{child}", module) for child in sorted(family.children))
            for name, module, family in mlps
        ),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=head_dim,
        d_model=int(model.get_input_embeddings().weight.shape[1]),
    )


def _find_blocks(model: Any) -> tuple[str, list[Any]]:
    """The module list with one entry per decoder layer, and its name.

    A vision tower may be as deep as the decoder; the decoder's list is the one that lies nearest to the words.
    """
    depth = int(model.config.get_text_config().num_hidden_layers)
    found = {
        name: list(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and len({type(b) for b in module}) == 1
    }
    if not found:
        raise ModelError(f"{type(model).__name__} has no list of {depth} equal decoder blocks; it cannot be edited")
    words = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    nearest = max(found, key=lambda name: _shared(name, words))
    return nearest, found[nearest]


def _shared(one: str, other: str) -> int:
    """How many modules on the way to the one are also on the way to the other."""
    both = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))


def _find_part(place: str, block: Any, families: tuple[_Family, ...], what: str) -> tuple[str, Any, _Family]:
    for name, module in block.named_modules():
        if not name:  # projections of the block itself, with no module around them to patch (OPT)
            continue
        linear = {child for child, part in module.named_children() if _is_linear(bare_layer(part))}
        for family in families:
            if family.children == linear:
                return f"{place}.{name}", module, family
    children = [name for name, _ in block.named_children()]
    raise ModelError(f"{place} ({type(block).__name__}: {', '.join(children)}) has no {what} that is understood")


def _is_linear(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(module, nn.Linear) or (isinstance(weight, Tensor) and weight.dim() == 2 and hasattr(module, "nf"))


def _projection(name: str, parent: Any) -> Projection:
    module = bare_layer(getattr(parent, name.rpartition(".")[2]))
    return Projection(f"{name}.weight", module, transposed=not isinstance(module, nn.Linear))


def _refuse_fused_experts(place: str, block: Any) -> None:
    fused = [name for name, weight in block.named_parameters() if weight.dim() == 3]
    if fused:
        raise ModelError(
            f"{place}.{fused[0]} holds the weights of several experts in one tensor. Mixture-of-experts blocks "
            "are not supported: an edit would have to choose an expert per token"
        )


def tensors_of(model: Any, names: Mapping[str, Any] | list[str]) -> dict[str, Any]:
    """The parameters with these checkpoint names; below an adapter those of the base.

    Raises:
        ModelError: The model has no parameter of a name.
    """
    parameters = dict(model.named_parameters()) | parameters_by_name(model)
    missing = [name for name in names if name not in parameters]
    if missing:
        raise ModelError(f"{type(model).__name__} has no tensor {missing[0]!r}; the delta is of another model")
    return {name: parameters[name] for name in names}

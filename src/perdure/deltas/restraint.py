"""PRUNE: restrain the singular values of an accumulated update.

Ma et al., "Perturbation-Restrained Sequential Model Editing", ICLR 2025. With W = W_base + ΔW and
ΔW = U diag(s) Vᵀ, the damage to the associations of W is bounded through its condition number, which grows
with the largest singular values of ΔW; these are contracted by F above σ* = σ_max(W_base).
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from perdure.deltas.delta import Change, Delta, LowRank
from perdure.deltas.spectrum import compress, decompose
from perdure.errors import SettingError
from perdure.registry import restraints


class PruneConfig(BaseModel):
    """Settings of the PRUNE restraint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["prune"] = "prune"
    form: Literal["published", "clamped", "scale_free"] = Field(
        "clamped",
        description="Contraction above σ*: published F(s) = log_α(s) − log_α(σ*) + σ*; clamped min(s, F(s)); "
        "scale_free σ*·(1 + ln(s/σ*)/ln α)",
    )
    alpha: float = Field(1.2, gt=1, description="Base of the logarithm: larger contracts more")
    ceiling: float = Field(1.0, gt=0, description="Contraction starts at this times σ*; the paper's is 1")

    @model_validator(mode="before")
    @classmethod
    def _default_alpha(cls, given: object) -> object:
        # 1.2 is the paper's base; a scale-free contraction needs at least e, or it expands just above σ*.
        if isinstance(given, dict) and given.get("form") == "scale_free" and "alpha" not in given:
            return {**given, "alpha": math.e}
        return given

    @model_validator(mode="after")
    def _scale_free_contracts(self) -> "PruneConfig":
        if self.form == "scale_free" and self.alpha < math.e:
            raise ValueError(f"alpha must be at least e = 2.71828… with form scale_free; given {self.alpha}")
        return self


class NoRestraintConfig(BaseModel):
    """No settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none"] = "none"


def contract(values: Tensor, ceiling: float, form: str, alpha: float) -> Tensor:
    """F(s) of PRUNE (equation 6) for singular values s [K] above `ceiling` = σ*; values below stay.

    The published F is not scale-free and can raise a value: with α = 1.2, σ* = 3.255 and s = 8.138 it
    gives 8.281. `clamped` never does; `scale_free` gives the same contraction in every unit of W.

    Raises:
        SettingError: An unknown form, or σ* is not positive.
    """
    if not ceiling > 0:
        raise SettingError(f"the largest singular value of the base must be positive; given {ceiling}")
    logs = torch.log(values.clamp(min=ceiling) / ceiling) / math.log(alpha)
    forms = {
        "published": logs + ceiling,
        "clamped": torch.minimum(values, logs + ceiling),
        "scale_free": ceiling * (1 + logs),
    }
    if form not in forms:
        raise SettingError(f"Unknown form {form!r} of PRUNE. Known: {', '.join(forms)}")
    return torch.where(values >= ceiling, forms[form], values)


@restraints.register("prune", config=PruneConfig, paper="Ma et al., PRUNE, ICLR 2025")
def prune(delta: Delta, ceilings: Mapping[str, float], config: PruneConfig | None = None) -> Delta:
    """The delta with its large singular values contracted; small ones and all vectors are unchanged.

    Args:
        delta: The accumulated update ΔW since the base.
        ceilings: σ* = σ_max(W_base) of each changed matrix.
        config: The form of F and its base.

    Raises:
        SettingError: A changed matrix has no ceiling.
    """
    chosen = config or PruneConfig()
    missing = [name for name, change in delta.changes.items() if len(change.shape) == 2 and name not in ceilings]
    if missing:
        raise SettingError(f"no largest singular value of the base given for {missing[:3]}")
    changes = {
        name: _prune_matrix(change, chosen.ceiling * ceilings[name], chosen) if len(change.shape) == 2 else change
        for name, change in delta.changes.items()
    }
    return Delta(changes, delta.keys, {**delta.notes, "restraint": chosen.model_dump()})


@restraints.register("none", config=NoRestraintConfig, paper="no change, the baseline")
def unrestrained(delta: Delta, ceilings: Mapping[str, float], config: NoRestraintConfig | None = None) -> Delta:
    """The delta as it is."""
    return delta


def restrained_step(solved: Delta, before: Delta, after: Delta) -> Delta:
    """The delta to apply now, so that the accumulated update is the restrained one.

    Args:
        solved: What the editor solved on top of the parent, the last term of both sums.
        before: The parent's accumulated update as it was applied.
        after: The restraint of the accumulated update with `solved` in it.

    A matrix whose accumulated update the restraint left alone gets just what was solved; the others get
    after − before, in as few factors as it needs. The base is never touched up to here, so PRUNE's
    W = W_base + F(ΔW) holds for the accumulated ΔW, once, however many steps led to it.
    """
    changes = {}
    for name in after.changes:
        plain = before.changes.get(name)
        whole = plain + solved.changes[name] if plain and name in solved.changes else plain or solved.changes.get(name)
        if whole is not None and _same(whole, after.changes[name]):
            if name in solved.changes:
                changes[name] = solved.changes[name]
            continue
        step = after.changes[name] if plain is None else after.changes[name] + plain * -1.0
        changes[name] = compress(step)
    return Delta(changes, solved.keys, solved.notes)


def _same(first: Change, second: Change) -> bool:
    """Whether two changes are made of the very same numbers."""
    pairs = list(zip(first.tensors(), second.tensors(), strict=False))
    return first.is_low_rank == second.is_low_rank and all(torch.equal(a, b) for a, b in pairs)


def correction(change: Change, ceiling: float, config: PruneConfig) -> LowRank | None:
    """Σ over s > σ* of (F(s) − s) u vᵀ as factors: what the restraint adds to the change; None if nothing."""
    if change.norm() <= ceiling:  # σ_max ≤ ‖·‖_F: no value can lie above, and a norm needs no decomposition
        return None
    left_OK, values_K, right_KI = decompose(change, above=ceiling)
    moved_K = contract(values_K, ceiling, config.form, config.alpha) - values_K
    kept_K = moved_K != 0  # the clamped form leaves a value that the published one would raise
    if not kept_K.any():
        return None
    return LowRank((left_OK * moved_K)[:, kept_K].float(), right_KI[kept_K].float())


def _prune_matrix(change: Change, ceiling: float, config: PruneConfig) -> Change:
    added = correction(change, ceiling, config)
    return change if added is None else change + Change(added)

"""Target values v*: what the hidden state at a subject's last token should be for the new answer.

The optimisation of Meng et al. (ROME 2022, section 3.1; MEMIT 2023, section 4.2), made fast without
changing its path: tokens before the subject's last token do not depend on δ, so their keys and values are
cached once, what all rows of a context begin with is read once for all facts; only the suffix runs, only
above the edited layer, with logits only where an answer token is predicted, for many facts at a time, and
facts that are done leave the batch. Facts of one site share one δ, found for all of them at once, and for those that
the model was taught there before.

Shape suffixes: N facts, B rows, S suffix tokens, P prefix tokens, D hidden size, V vocabulary, A answers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.editing.beginnings import Beginnings, read_beginnings
from perdure.editing.subjects import Contexts, SubjectRow, essence_rows, sites_of, target_rows, with_rows
from perdure.errors import EditError
from perdure.models import Layout, capture, layout_of, resume_above, returns_tuple
from perdure.models.caching import cache_of, keys_values
from perdure.models.head import head_is_plain, logits_at
from perdure.requests import Fact


class ValueConfig(BaseModel):
    """Settings of the search for target values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(20, ge=2, description="At most this many looks at the loss, an Adam step between each two")
    step: float = Field(0.13, gt=0, description="Adam's learning rate, as a step's length over ‖v0‖")
    learning_rate: float | None = Field(None, gt=0, description="Adam's learning rate as such, instead of `step`")
    betas: tuple[float, float] = Field((0.8, 0.99), description="Adam's averages of gradient and squared gradient")
    clamp: float | None = Field(
        None, gt=0, description="‖δ‖ is at most this times ‖v0‖; 0.75, and less from 20 facts on, when not given"
    )
    weight_decay: float = Field(0.5, ge=0, description="Weight of ‖δ‖ / ‖v0‖² in the loss")
    kl_weight: float = Field(0.0625, ge=0, description="Weight of KL(edited ‖ original) on “{subject} is a”")
    stop_loss: float = Field(0.05, ge=0, description="A fact is done when its loss is below this")

    def rate(self, anchor: float, width: int) -> float:
        """Adam's learning rate for a fact whose ‖v0‖ is `anchor`, in a hidden state of `width` numbers.

        The papers' 0.1 to 0.5 are in units of one model's hidden state. Adam moves every number by about its
        rate, so √width · rate is the length of a step; here it is a share of ‖v0‖.
        """
        return self.learning_rate or self.step * anchor / math.sqrt(width)

    def radius(self, facts: int) -> float:
        """The clamp, for a model that carries so many facts once they are taught.

        What text loses grows with the number of facts times ‖δ‖². The fifth root shares the burden between them:
        each fact is written a little less strongly, the more there are.
        """
        return self.clamp or 0.75 * min(1.0, 20 / max(facts, 1)) ** 0.2


@dataclass(frozen=True)
class Values:
    """The result of the search.

    Attributes:
        shift: δ [N, D], float32; the same for facts of one site.
        losses: The last loss of each fact.
        steps: The number of steps each fact took.
    """

    shift: Tensor
    losses: tuple[float, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class _Suffixes:
    """Rows cut at the subject's last token, with everything before it already computed.

    Attributes:
        rows: The rows, in order.
        hidden_BSD: Block output of the edited layer; column 0 is the subject's last token.
        ids_BS: Tokens of the suffix.
        mask_BT: 1 where a token is, over P prefix and S suffix columns.
        positions_BS: Positions in the row.
        past: Keys and values of the prefix, one pair per block.
    """

    rows: tuple[SubjectRow, ...]
    hidden_BSD: Tensor
    ids_BS: Tensor
    mask_BT: Tensor
    positions_BS: Tensor
    past: tuple[tuple[Tensor, Tensor], ...]

    def keep(self, facts: set[int]) -> "_Suffixes":
        """Only the rows of these facts."""
        chosen = [index for index, row in enumerate(self.rows) if row.fact in facts]
        at = torch.tensor(chosen, device=self.ids_BS.device)
        return _Suffixes(
            tuple(self.rows[index] for index in chosen),
            self.hidden_BSD[at],
            self.ids_BS[at],
            self.mask_BT[at],
            self.positions_BS[at],
            tuple((key[at], value[at]) for key, value in self.past),
        )


def clip_norm(shift_ND: Tensor, limit_N: Tensor) -> Tensor:
    """Each row of δ scaled down to at most its limit."""
    norm_N = shift_ND.norm(dim=1)
    scale_N: Tensor = (limit_N / norm_N.clamp(min=1e-12)).clamp(max=1.0)
    return shift_ND * scale_N[:, None]


def find_values(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    layer: int,
    anchors_ND: Tensor,
    *,
    contexts: Contexts,
    config: ValueConfig,
    beside: Sequence[Fact] = (),
    carried: int = 0,
    chunk_tokens: int | None = None,
    on_done: Callable[[int], None] | None = None,
) -> Values:
    """The shift δ of each fact at block `layer` that makes the model give the new answer.

    Loss of a fact: mean over contexts of the mean NLL of the answer's tokens, plus the KL term, plus the
    decay term. Adding δ to the block's output equals adding it to the MLP's output, as the block adds both.
    Facts of one site (`sites_of`) have one δ: their losses are added, and it is done when each is below the limit. So
    are those of earlier facts of the same site, which would be lost otherwise.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        facts: The facts.
        layer: The block whose output is shifted.
        anchors_ND: v0 of each fact, whose norm scales the clip and the decay: the MLP's output in ROME,
            the block's output in MEMIT.
        contexts: Texts before the prompts.
        config: The settings.
        beside: Earlier facts whose answers shall stay (`companions`); those of other sites are left out.
        carried: How many facts the model carries in the end, where they are more than these.
        chunk_tokens: Padded suffix tokens of the facts that are optimised together; by device when not given.
        on_done: Told how many facts each chunk finished.

    Raises:
        EditError: A loss became NaN (the fact is named), or v0 is zero.
    """
    layout = layout_of(model)
    head_is_plain(model)  # looked at once, before the lower blocks are skipped
    several = [*facts, *with_rows(tokenizer, beside, contexts)]
    rows = target_rows(tokenizer, several, contexts)
    sites = sites_of(rows)
    rows += essence_rows(tokenizer, several)
    rows = [row for row in rows if sites[row.fact] < len(facts)]
    beginnings = read_beginnings(model, layout, rows)
    shift_ND = torch.zeros(len(several), layout.d_model)
    losses, steps = [0.0] * len(several), [0] * len(several)
    for chunk in _chunks(rows, sites, chunk_tokens or _default_chunk(model)):
        suffixes = _prepare(model, layout, layer, [row for row in rows if row.fact in chunk], beginnings)
        search = _Search(model, layout, layer, suffixes, config, config.radius(max(carried, len(facts))))
        anchor_N = anchors_ND[[sites[fact] for fact in chunk]].float().norm(dim=1).to(model.device)
        if not (anchor_N > 0).all():
            raise EditError(
                f"layer {layer} gives zero for a subject, so no value can be scaled by it; choose another layer"
            )
        found = search.run({fact: sites[fact] for fact in chunk}, anchor_N, several)
        shift_ND[chunk] = found.shift.cpu()
        for fact, loss, step in zip(chunk, found.losses, found.steps, strict=True):
            losses[fact], steps[fact] = loss, step
        if on_done:
            on_done(sum(fact < len(facts) for fact in chunk))
    return Values(shift_ND[: len(facts)], tuple(losses[: len(facts)]), tuple(steps[: len(facts)]))


def _default_chunk(model: Any) -> int:
    """A CPU core is busy with few tokens, and small chunks pad less; a GPU wants many."""
    return 256 if model.device.type == "cpu" else 8192


def _chunks(rows: Sequence[SubjectRow], sites: Sequence[int], tokens: int) -> list[list[int]]:
    """Facts of similar suffix length, so that little is padded; at most about `tokens` padded tokens each.

    The facts of a site stay together.
    """
    longest, number = dict[int, int](), dict[int, int]()
    for row in rows:
        site = sites[row.fact]
        longest[site] = max(longest.get(site, 0), len(row.ids) - row.at)
        number[site] = number.get(site, 0) + 1
    chunks: list[list[int]] = []
    size = 0
    for site in sorted(longest, key=longest.__getitem__):
        size += number[site]
        if not chunks or size * longest[site] > tokens:
            chunks.append([])
            size = number[site]
        chunks[-1] += [fact for fact, other in enumerate(sites) if other == site]
    return chunks


class _Search:
    """The optimisation of one chunk of facts."""

    def __init__(
        self, model: Any, layout: Layout, layer: int, suffixes: _Suffixes, config: ValueConfig, radius: float
    ) -> None:
        self.model, self.layout, self.layer, self.config, self.radius = model, layout, layer, config, radius
        self.as_tuple = returns_tuple(model, layout.blocks[layer])
        self.suffixes = suffixes
        self.reference: dict[int, Tensor] = {}

    def run(self, sites: dict[int, int], anchor_N: Tensor, facts: Sequence[Fact]) -> Values:
        """δ, the last loss and the steps of each fact of the chunk, in its order.

        Args:
            sites: From each fact of the chunk to its site.
            anchor_N: ‖v0‖ of each.
            facts: All facts.
        """
        width, device = self.layout.d_model, self.model.device
        anchors = dict(zip(sites, anchor_N, strict=True))
        own = {site: torch.zeros(width, device=device, requires_grad=True) for site in sites.values()}
        shifts = {fact: own[site] for fact, site in sites.items()}
        rates = [self.config.rate(float(anchors[site]), width) for site in own]
        groups = [{"params": [shift], "lr": rate} for shift, rate in zip(own.values(), rates, strict=True)]
        adam = torch.optim.Adam(groups, betas=self.config.betas)
        losses, steps = dict.fromkeys(sites, float("nan")), dict.fromkeys(sites, 0)
        active, suffixes = set(sites), self.suffixes
        for step in range(self.config.steps):
            loss_by_fact = self._losses(suffixes, shifts, anchors)
            for fact, loss in loss_by_fact.items():
                losses[fact], steps[fact] = loss.item(), step
                if not torch.isfinite(loss):
                    raise EditError(f"the loss of {facts[fact].prompt!r} became NaN; lower the learning rate")
            open_sites = {sites[fact] for fact in loss_by_fact if losses[fact] >= self.config.stop_loss}
            done = {fact for fact in loss_by_fact if sites[fact] not in open_sites}
            active -= done
            if not active or step == self.config.steps - 1:
                break
            if done:
                suffixes = suffixes.keep(active)
            adam.zero_grad(set_to_none=True)
            torch.stack([loss_by_fact[fact] for fact in sorted(active)]).sum().backward()  # type: ignore[no-untyped-call]
            for fact in done:  # the batch it just left gives it a zero gradient, and momentum would move it on
                shifts[fact].grad = None
            adam.step()
            self._clip(shifts, open_sites, anchors)
        shift_ND = torch.stack([shift.detach() for shift in shifts.values()])
        return Values(shift_ND, tuple(losses.values()), tuple(steps.values()))

    def _clip(self, shifts: dict[int, Tensor], sites: set[int], anchors: dict[int, Tensor]) -> None:
        with torch.no_grad():
            for site in sites:
                limit = self.radius * anchors[site]
                shifts[site].copy_(clip_norm(shifts[site][None], limit[None])[0])

    def _losses(self, suffixes: _Suffixes, shifts: dict[int, Tensor], anchors: dict[int, Tensor]) -> dict[int, Tensor]:
        """The loss of each fact that has rows in `suffixes`, in order of facts."""
        places = _answer_places(suffixes.rows)
        rows = torch.tensor([row for row, _ in places], device=self.model.device)
        columns = torch.tensor([column for _, column in places], device=self.model.device)
        log_probs_AV = self._logits(suffixes, shifts, rows, columns).log_softmax(1)
        nll: dict[int, list[Tensor]] = {}
        kl: dict[int, Tensor] = {}
        start = 0
        for row in suffixes.rows:
            count = len(row.ids) - row.target
            if not count:  # “{subject} is a”: the distribution after its last token
                kl[row.fact] = self._kl(row.fact, log_probs_AV[start])
                start += 1
                continue
            answer = torch.tensor(row.ids[row.target :], device=self.model.device)
            chosen = log_probs_AV[start : start + count].gather(1, answer[:, None])
            nll.setdefault(row.fact, []).append(-chosen.mean())
            start += count
        return {
            fact: torch.stack(parts).mean()
            + self.config.kl_weight * kl[fact]
            + self.config.weight_decay * shifts[fact].norm() / anchors[fact] ** 2
            for fact, parts in nll.items()
        }

    def _kl(self, fact: int, log_probs_V: Tensor) -> Tensor:
        """KL(edited ‖ original); the original is what the first step, at δ = 0, saw."""
        reference_V = self.reference.setdefault(fact, log_probs_V.detach())
        return (log_probs_V.exp() * (log_probs_V - reference_V)).sum()

    def _logits(self, suffixes: _Suffixes, shifts: dict[int, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
        shift_BD = torch.stack([shifts[row.fact] for row in suffixes.rows])
        hidden_BSD = suffixes.hidden_BSD
        shifted = (hidden_BSD[:, :1] + shift_BD[:, None]).to(hidden_BSD.dtype)  # rounded once, as a sum
        hidden_BSD = torch.cat([shifted, hidden_BSD[:, 1:]], 1)
        with resume_above(self.layout.blocks, self.layer, lambda: hidden_BSD, as_tuple=self.as_tuple):
            return logits_at(
                self.model,
                rows,
                columns,
                input_ids=suffixes.ids_BS,
                attention_mask=suffixes.mask_BT,
                position_ids=suffixes.positions_BS,
                past_key_values=cache_of(self.model, suffixes.past),
                use_cache=True,
            )


def _answer_places(rows: Sequence[SubjectRow]) -> list[tuple[int, int]]:
    """The (row, suffix column) whose logits predict each answer token; the last column of essence rows."""
    places = []
    for index, row in enumerate(rows):
        columns = range(row.target - 1, len(row.ids) - 1) if row.target < len(row.ids) else [len(row.ids) - 1]
        places += [(index, column - row.at) for column in columns]
    return places


def _prepare(model: Any, layout: Layout, layer: int, rows: list[SubjectRow], beginnings: Beginnings) -> _Suffixes:
    """One forward pass over what follows the shared beginnings, cut at the subject's last token."""
    # The last answer token is only predicted, never read.
    inputs = [row.ids if row.target == len(row.ids) else row.ids[:-1] for row in rows]
    rest = beginnings.rest(rows, inputs, model.device)
    given = rest.inputs(model)
    with torch.no_grad():
        seen = capture(lambda: model.base_model(**given), outputs={"block": layout.blocks[layer]}, whole=True)
    here = slice(rest.column, None)
    before = rest.mask_BT.shape[1] - rest.ids_BT.shape[1] + rest.column
    past = keys_values(given["past_key_values"], before)
    hidden_BSD = seen["block"][:, here].detach()
    return _Suffixes(tuple(rows), hidden_BSD, rest.ids_BT[:, here], rest.mask_BT, rest.positions_BT[:, here], past)

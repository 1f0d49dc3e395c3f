"""The last token of a prompt, run many times: what comes before it is read once.

A change at the last token never reaches the tokens before it. So their keys and values are kept, and every
intervention is one row of a pass over one token (and the answer's own, where it has several), which runs only the
blocks that the change can reach.

Shape suffixes: L layers, H query heads, K head size, D hidden size, R rows of a pass, N tokens run (the prompt's last
one and the answer's but its last), P tokens before, V vocabulary.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from perdure.errors import ModelError
from perdure.models import Layout, capture, layout_of, patch_input, patch_output, resume_above, returns_tuple
from perdure.models.caching import KeysValues, cache_of, keys_values
from perdure.models.head import head_is_plain, logits_at
from perdure.vectors.prompts import Prompt

Scored = Literal["first", "answer"]
"""What an intervention is judged by: the probability of the answer's first token, or the log-probability of all."""

_CPU_ROWS, _GPU_ROWS = 48, 1024
_CACHE_BYTES = 2**31


@dataclass(frozen=True)
class Patch:
    """One intervention at the prompt's last token.

    Attributes:
        layer: The block.
        head: The head whose activation is replaced; None: the value is added to the block's output.
        value: [K] for a head, [D] for a block.
    """

    layer: int
    head: int | None
    value: Tensor


def scores_of(log_prob_RN: Tensor, scored: Scored) -> Tensor:
    """What a row is judged by, [R], float64: p of the first answer token, or log p of the whole answer."""
    wide_RN = log_prob_RN.double()
    return wide_RN[:, 0].exp() if scored == "first" else wide_RN.sum(1)


class LastToken:
    """One prompt, ready for interventions at its last token.

    Args:
        model: A causal language model in evaluation mode.
        prompt: The prompt; two tokens at least.

    Attributes:
        head_LHK: The heads' activations at the last token.
        log_prob_N: Log-probability of each answer token without any intervention.
        chosen_N: The most probable token at each place of the answer.
    """

    def __init__(self, model: Any, prompt: Prompt) -> None:
        self._model, self._prompt = model, prompt
        self._layout = layout_of(model)
        self._as_tuple = returns_tuple(model, self._layout.blocks[0])
        head_is_plain(model)  # looked at once, before any block is skipped
        self._past = self._read_before()
        seen, logits_NV = self._look()
        self._block_LND = torch.stack([seen["block", layer] for layer in range(len(self._layout))])
        read_LI = torch.stack([seen["heads", layer] for layer in range(len(self._layout))])
        self.head_LHK = read_LI.reshape(len(read_LI), self._layout.heads, self._layout.head_dim)
        self.log_prob_N = _answered(logits_NV[None], prompt.answer)[0]
        self.chosen_N = logits_NV.argmax(1)

    def is_right(self, scored: Scored) -> bool:
        """Whether the answer's first token, or each of them, is the most probable one without any intervention."""
        count = 1 if scored == "first" else len(self._prompt.answer)
        return self.chosen_N[:count].tolist() == list(self._prompt.answer[:count])

    def log_probs(self, patches: Sequence[Patch]) -> Tensor:
        """Log-probability of each answer token under each intervention, alone: [R, N], on the CPU."""
        answer = self._prompt.answer
        return self._each(patches, lambda logits_RNV: _answered(logits_RNV, answer))

    def choices(self, patches: Sequence[Patch]) -> list[int]:
        """The most probable first token of the answer under each intervention, alone."""
        chosen_R: list[int] = self._each(patches, lambda logits_RNV: logits_RNV[:, 0].argmax(1)).tolist()
        return chosen_R

    @torch.no_grad()
    def _each(self, patches: Sequence[Patch], take: Callable[[Tensor], Tensor]) -> Tensor:
        """What is taken of the logits [R, N, V] of every intervention, in their order."""
        order = sorted(range(len(patches)), key=lambda row: patches[row].layer)
        size = self._rows_at_once()
        parts = [
            take(self._run([patches[row] for row in order[start : start + size]])).cpu()
            for start in range(0, len(order), size)
        ]
        back = torch.tensor(order).argsort()
        return torch.cat(parts)[back]

    def gradient(self, scored: Scored) -> Tensor:
        """How the score changes with each head's activation, to first order: [L, H, K].

        That of p is p times that of log p, which float16 can hold however small p is.

        Raises:
            ModelError: No gradient reaches the heads (reentrant gradient checkpointing, or detached states).
        """
        probe_L1I = [torch.zeros(1, part.d_in, device=part.module.weight.device) for part in self._layout.attention_out]
        with torch.enable_grad(), ExitStack() as stack:
            for part, probe_1I in zip(self._layout.attention_out, probe_L1I, strict=True):
                stack.enter_context(patch_input(part.module, _adding(probe_1I.requires_grad_())))
            logits_RNV = self._logits(1, self._past)
            log_prob_N = _answered(logits_RNV, self._prompt.answer)[0].double()
            judged = log_prob_N[0] if scored == "first" else log_prob_N.sum()
            try:
                gradient_L1I = torch.autograd.grad(judged, probe_L1I)
            except RuntimeError as error:
                raise ModelError(
                    "no gradient reaches the attention heads; switch gradient checkpointing off, or compute exact "
                    f"effects (prefilter off): {error}"
                ) from error
        gradient_LI = torch.cat(gradient_L1I) * (log_prob_N[0].detach().exp() if scored == "first" else 1)
        return gradient_LI.reshape(len(probe_L1I), self._layout.heads, self._layout.head_dim)

    def _rows_at_once(self) -> int:
        """Every row has keys and values of its own while it runs; all of them fit into `_CACHE_BYTES`."""
        row = sum(part.numel() * part.element_size() for pair in self._past for part in pair)
        most = _CPU_ROWS if self._model.device.type == "cpu" else _GPU_ROWS
        return max(1, min(most, _CACHE_BYTES // max(1, row)))

    @torch.no_grad()
    def _read_before(self) -> KeysValues:
        before = self._prompt.ids[:-1]
        if not before:
            raise ModelError("a prompt of one token has nothing before its last one; give a longer one")
        ids_1P = torch.tensor([before], device=self._model.device)
        cache = cache_of(self._model, ())
        self._model.base_model(input_ids=ids_1P, past_key_values=cache, use_cache=True)
        return keys_values(cache)

    @torch.no_grad()
    def _look(self) -> tuple[dict[Any, Tensor], Tensor]:
        """Block outputs [N, D], head activations [I] and logits [N, V] without any intervention."""
        logits: list[Tensor] = []
        layout = self._layout
        seen = capture(
            lambda: logits.append(self._logits(1, self._past)[0]),
            inputs={("heads", layer): part.module for layer, part in enumerate(layout.attention_out)},
            outputs={("block", layer): block for layer, block in enumerate(layout.blocks)},
            whole=True,
            keep=lambda state_BND: state_BND[0],
        )
        return {key: state[0] if key[0] == "heads" else state for key, state in seen.items()}, logits[0]

    def _run(self, patches: Sequence[Patch]) -> Tensor:
        """The logits [R, N, V] under each intervention, in one pass."""
        lowest, rows = min(patch.layer for patch in patches), len(patches)
        with ExitStack() as stack:
            if lowest > 0:
                hidden_RND = self._block_LND[lowest - 1].expand(rows, -1, -1)
                upper = resume_above(self._layout.blocks, lowest - 1, lambda: hidden_RND, as_tuple=self._as_tuple)
                stack.enter_context(upper)
            for layer in {patch.layer for patch in patches}:
                self._install(stack, layer, patches)
            past = tuple(  # blocks that are skipped read no keys; the first one's tell how many tokens there are
                (key, value) if layer < lowest else (key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1))
                for layer, (key, value) in enumerate(self._past)
            )
            return self._logits(rows, past)

    def _install(self, stack: ExitStack, layer: int, patches: Sequence[Patch]) -> None:
        heads = [(row, patch) for row, patch in enumerate(patches) if patch.layer == layer and patch.head is not None]
        added = [(row, patch) for row, patch in enumerate(patches) if patch.layer == layer and patch.head is None]
        if heads:
            stack.enter_context(patch_input(self._layout.attention_out[layer].module, _replacing(heads, self._layout)))
        if added:
            stack.enter_context(patch_output(self._layout.blocks[layer], _adding_rows(added)))

    def _logits(self, rows: int, past: KeysValues) -> Tensor:
        """The logits [R, N, V] at the answer's places."""
        ids = (self._prompt.ids[-1], *self._prompt.answer[:-1])
        device, before = self._model.device, len(self._prompt.ids) - 1
        place_N = torch.arange(len(ids), device=device)
        logits = logits_at(
            self._model,
            torch.arange(rows, device=device).repeat_interleave(len(ids)),
            place_N.repeat(rows),
            input_ids=torch.tensor(ids, device=device).expand(rows, -1),
            attention_mask=torch.ones(rows, before + len(ids), dtype=torch.long, device=device),
            position_ids=(before + place_N).expand(rows, -1),
            past_key_values=cache_of(self._model, past),
            use_cache=True,
        )
        return logits.reshape(rows, len(ids), -1)


def _answered(logits_RNV: Tensor, answer: Sequence[int]) -> Tensor:
    """Log-probability [R, N] of each answer token."""
    answer_N = torch.tensor(answer, device=logits_RNV.device)
    picked_RN = logits_RNV.gather(2, answer_N[None, :, None].expand(len(logits_RNV), -1, 1))[..., 0]
    return picked_RN - logits_RNV.logsumexp(2)


def _replacing(patches: Sequence[tuple[int, Patch]], layout: Layout) -> Callable[[Tensor], Tensor]:
    def change(read_RNI: Tensor) -> Tensor:
        patched_RNI = read_RNI.clone()
        heads_RNHK = patched_RNI.view(*read_RNI.shape[:2], layout.heads, layout.head_dim)
        row_R = torch.tensor([row for row, _ in patches], device=read_RNI.device)
        head_R = torch.tensor([patch.head for _, patch in patches], device=read_RNI.device)
        heads_RNHK[row_R, 0, head_R] = torch.stack([patch.value for _, patch in patches]).to(read_RNI)
        return patched_RNI

    return change


def _adding_rows(patches: Sequence[tuple[int, Patch]]) -> Callable[[Tensor], Tensor]:
    def change(hidden_RND: Tensor) -> Tensor:
        patched_RND = hidden_RND.clone()
        row_R = torch.tensor([row for row, _ in patches], device=hidden_RND.device)
        patched_RND[row_R, 0] += torch.stack([patch.value for _, patch in patches]).to(hidden_RND)
        return patched_RND

    return change


def _adding(probe_1I: Tensor) -> Callable[[Tensor], Tensor]:
    """Adds a vector of zeros at the last prompt token; what the gradient is taken of."""

    def change(read_RNI: Tensor) -> Tensor:
        first_R1I, rest_RNI = read_RNI[:, :1] + probe_1I.to(read_RNI.dtype), read_RNI[:, 1:]
        return torch.cat([first_R1I, rest_RNI], 1)

    return change

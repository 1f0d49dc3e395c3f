"""The runs of causal tracing: one fact clean, corrupted, and corrupted with single states put back.

The restorations at one layer are rows of a pass, which runs only the blocks that they can change and only the
tokens from the first restored one on: what comes before is as in the corrupted run and stands in the cache.

Shape suffixes: K kinds of state, L layers, C token classes, P traced tokens (from the subject's first one
on), T tokens, S draws of noise, B rows of a pass, D hidden size, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from perdure.editing.corruption import TOKEN_CLASSES, Noise, TracedRow
from perdure.models import capture, layout_of, patch_output, resume_above, returns_tuple
from perdure.models.caching import cache_of, first_columns
from perdure.models.head import head_is_plain, logits_at

# Tokens of one forward pass: a CPU core is busy with few, and short passes repeat fewer of them; a GPU wants many.
_CPU_TOKENS, _GPU_TOKENS = 48, 8192


def restored_layers(layer: int, window: int, depth: int) -> range:
    """The layers of a window centred on `layer`, cut at both ends of the model; of an even one, one more below."""
    return range(max(0, layer - window // 2), min(depth, layer + (window + 1) // 2))


@dataclass(frozen=True)
class Runs:
    """The clean and the corrupted run of one fact, from the subject's first token on.

    Attributes:
        row: The fact.
        noise_SPD: Added to the embeddings; zero after the subject.
        clean: Probability of the answer in the clean run.
        known: Whether the answer's first token ranks first there.
        corrupted_S: Its probability under each draw of noise, float64.
        blocks: From layer to the block's output [1 + S, P, D], the clean run first.
        mlps: From layer to the MLP's output in the clean run [P, D].
        past: Keys and values of the corrupted run [S, heads, T, size of a head], one pair per block.
    """

    row: TracedRow
    noise_SPD: Tensor
    clean: float
    known: bool
    corrupted_S: Tensor
    blocks: Mapping[int, Tensor]
    mlps: Mapping[int, Tensor]
    past: tuple[tuple[Tensor, Tensor], ...]

    @property
    def reason(self) -> str:
        """Why this fact is not traced; empty when it is."""
        if not self.known:
            return "the model does not know it: another token ranks first"
        return "" if float(self.corrupted_S.mean()) < self.clean else "the noise does not lower its probability"


class Tracer:
    """One model, traced fact by fact.

    Args:
        model: A causal language model in evaluation mode.
        window: How many neighbouring MLPs are restored together.
        noise: What is added to the embeddings of a subject.
    """

    def __init__(self, model: Any, window: int, noise: Noise) -> None:
        self.model, self.window, self.noise = model, window, noise
        self.layout = layout_of(model)
        self.as_tuple = returns_tuple(model, self.layout.blocks[0])
        head_is_plain(model)  # looked at once, before any block is skipped

    @torch.no_grad()
    def start(self, row: TracedRow) -> Runs:
        """The clean and the corrupted run in one pass, with every state that the restorations need."""
        blocks, mlps, first = self.layout.blocks, self.layout.mlps, row.first
        noise_SPD = self.noise.of(row, self.layout.d_model).to(self.model.device)
        logits: list[Tensor] = []
        cache = cache_of(self.model, ())

        def corrupt(state_BTD: Tensor) -> Tensor:
            noisy_BTD = state_BTD.clone()
            noisy_BTD[1:, first:] += noise_SPD.to(noisy_BTD)
            return noisy_BTD

        with patch_output(self.model.get_input_embeddings(), corrupt):
            seen = capture(
                lambda: logits.append(self._logits(row.ids, 1 + len(noise_SPD), cache)),
                outputs={("block", at): block for at, block in enumerate(blocks)}
                | {("mlp", at): mlp for at, mlp in enumerate(mlps)},
                whole=True,
            )
        probability_B = logits[0].double().softmax(1)[:, row.answer].cpu()
        return Runs(
            row,
            noise_SPD,
            clean=float(probability_B[0]),
            known=int(logits[0][0].argmax()) == row.answer,
            corrupted_S=probability_B[1:],
            blocks={at: seen["block", at][:, first:] for at in range(len(blocks))},
            mlps={at: seen["mlp", at][0, first:] for at in range(len(mlps))},
            past=tuple((layer.keys[1:], layer.values[1:]) for layer in cache.layers),
        )

    def effects(self, runs: Runs) -> Tensor:
        """The indirect effects of one fact [K, L, C], float64."""
        depth = len(self.layout)
        windows = [restored_layers(layer, self.window, depth) for layer in range(depth)]
        mlp_LP = torch.stack([self._restored(runs, window[0] - 1, window) for window in windows])
        hidden_LP = torch.stack([self._restored(runs, layer, range(0)) for layer in range(depth)])
        effect_KLP = torch.stack([mlp_LP, hidden_LP]) - runs.corrupted_S.mean()
        class_P = torch.tensor(runs.row.classes)
        parts = [effect_KLP[:, :, class_P == place].mean(2) for place in range(len(TOKEN_CLASSES))]
        return torch.stack(parts, 2)

    def _restored(self, runs: Runs, below: int, window: range) -> Tensor:
        """The answer's probability [P] with one token's states restored, mean over noise, float64.

        Restored are the MLPs of the window, or, where it is empty, the output of block `below`.
        """
        traced, parts, start = len(runs.row.classes), [], 0
        room = _CPU_TOKENS if self.model.device.type == "cpu" else _GPU_TOKENS
        while start < traced:
            stop = min(traced, start + max(1, room // (self.noise.draws * (traced - start))))
            parts.append(self._restore(runs, range(start, stop), below, window))
            start = stop
        return torch.cat(parts)

    @torch.no_grad()
    def _restore(self, runs: Runs, tokens: range, below: int, window: range) -> Tensor:
        """As `_restored`, for some of the tokens, in one pass from the first of them on: a row for each and draw."""
        start, draws, device = tokens[0], self.noise.draws, self.model.device
        row_B = torch.arange(draws * len(tokens), device=device)
        at_B = torch.arange(len(tokens), device=device).repeat(draws)

        def put(state_BPD: Tensor, clean_PD: Tensor) -> Tensor:
            restored_BPD = state_BPD.clone()
            restored_BPD[row_B, at_B] = clean_PD[at_B]
            return restored_BPD

        def corrupt(state_BPD: Tensor) -> Tensor:
            return state_BPD + runs.noise_SPD[:, start:].to(state_BPD).repeat_interleave(len(tokens), 0)

        with ExitStack() as stack:
            if below < 0:
                stack.enter_context(patch_output(self.model.get_input_embeddings(), corrupt))
            else:
                clean_PD, corrupted_SPD = runs.blocks[below][0, start:], runs.blocks[below][1:, start:]
                corrupted_BPD = corrupted_SPD.repeat_interleave(len(tokens), 0)
                hidden_BPD = corrupted_BPD if window else put(corrupted_BPD, clean_PD)
                upper = resume_above(self.layout.blocks, below, lambda: hidden_BPD, as_tuple=self.as_tuple)
                stack.enter_context(upper)
            for layer in window:
                clean = partial(put, clean_PD=runs.mlps[layer][start:])
                stack.enter_context(patch_output(self.layout.mlps[layer], clean))
            cache = cache_of(self.model, first_columns(runs.past, runs.row.first + start, len(tokens)))
            logits_BV = self._logits(runs.row.ids, len(row_B), cache)
        log_probability_B = logits_BV[:, runs.row.answer] - logits_BV.logsumexp(1)
        return log_probability_B.double().exp().view(draws, -1).mean(0).cpu()

    def _logits(self, ids: Sequence[int], rows: int, cache: Any) -> Tensor:
        """The logits [B, V] after the last of these tokens, of which the cache may hold the first ones."""
        start, device = cache.get_seq_length(), self.model.device
        position_BT = torch.arange(start, len(ids), device=device).expand(rows, -1)
        return logits_at(
            self.model,
            torch.arange(rows, device=device),
            torch.full((rows,), len(ids) - start - 1, device=device),
            input_ids=torch.tensor(ids[start:], device=device).expand(rows, -1),
            attention_mask=torch.ones(rows, len(ids), dtype=torch.long, device=device),
            position_ids=position_BT,
            past_key_values=cache,
            use_cache=True,
        )

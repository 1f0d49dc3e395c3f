"""PRUNE by the low-rank route against a full singular value decomposition: same result, how much less time.

    python -m bench.restraint

Shapes of SmolLM2-135M by default; --large adds 4096 × 11008 (Llama-2-7B), where the full route takes minutes.
"""

import argparse
import json
import time

import torch

from perdure.deltas import Change, Delta, LowRank, contract, prune


def compare(rows: int, columns: int, rank: int, repeats: int = 3) -> dict[str, float]:
    """Best seconds of both routes (full in float32), and the largest difference of an entry over the largest entry."""
    torch.manual_seed(0)
    change = Change(LowRank(torch.randn(rows, rank), torch.randn(rank, columns) / columns**0.5))
    dense = change.value().float()
    ceiling = float(torch.linalg.matrix_norm(dense, ord=2)) * 0.5
    fast_seconds, full_seconds = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        restrained = prune(Delta({"w": change}), {"w": ceiling}).changes["w"]
        middle = time.perf_counter()
        _full_route(dense, ceiling)
        full_seconds.append(time.perf_counter() - middle)
        fast_seconds.append(middle - start)
    exact = _full_route(dense.double(), ceiling)  # in float64: a float32 SVD is the less exact of the two
    return {
        "rows": rows,
        "columns": columns,
        "rank": rank,
        "full_seconds": min(full_seconds),
        "low_rank_seconds": min(fast_seconds),
        "ratio": min(full_seconds) / min(fast_seconds),
        "largest_difference": float((restrained.value() - exact).abs().max() / exact.abs().max()),
    }


def _full_route(dense: torch.Tensor, ceiling: float) -> torch.Tensor:
    left, values, right = torch.linalg.svd(dense, full_matrices=False)
    return left * contract(values, ceiling, "clamped", 1.2) @ right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="4096 × 11008 as well, once")
    given = parser.parse_args()
    for rank in (1, 10, 100):
        print(json.dumps(compare(576, 1536, rank)))
    if given.large:
        print(json.dumps(compare(4096, 11008, 100, repeats=1)))


if __name__ == "__main__":
    main()

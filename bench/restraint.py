"""PRUNE by the low-rank route against a full singular value decomposition: same result, how much less time.

    python -m bench.restraint
    python -m bench.restraint --large

Shapes of SmolLM2-135M by default; --large adds 4096 × 11008 (Llama-2-7B), where the full route takes minutes.
CPU seconds of both routes in one run, on one thread, the best of some repetitions. σ* is given to both: it belongs
to the base matrix and is remembered (about 0.2 s at 576 × 1536). The full route is an SVD in float32; the result is
held against an SVD in float64, and the benchmark fails where the largest difference is above 5e-6 of the largest entry.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

from bench.machine import describe_machine
from perdure.deltas import Change, Delta, LowRank, contract, prune, singular_values

TOLERANCE = 5e-6


def compare(rows: int, columns: int, rank: int, *, fast_repeats: int = 20, full_repeats: int = 3) -> dict[str, float]:
    """Best CPU seconds of both routes, and the largest difference of an entry over the largest entry.

    Raises:
        AssertionError: The difference is above 5e-6.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(*shape, generator=generator) for shape in ((rows, rank), (rank, columns)))
    change = Change(LowRank(left, right / columns**0.5))
    dense = change.value().float()
    ceiling = 0.5 * float(singular_values(change)[0])
    fast = [_seconds(lambda: prune(Delta({"w": change}), {"w": ceiling})) for _ in range(fast_repeats)]
    full = [_seconds(lambda: _full_route(dense, ceiling)) for _ in range(full_repeats)]
    exact = _full_route(dense.double(), ceiling)  # in float64: a float32 SVD is the less exact of the two
    found = prune(Delta({"w": change}), {"w": ceiling}).changes["w"].value()
    difference = float((found - exact).abs().max() / exact.abs().max())
    assert difference <= TOLERANCE, f"the routes differ by {difference} of the largest entry; {TOLERANCE} is allowed"
    return {
        "rows": rows,
        "columns": columns,
        "rank": rank,
        "full_cpu_seconds": min(full),
        "low_rank_cpu_seconds": min(fast),
        "ratio": min(full) / min(fast),
        "largest_difference": difference,
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _full_route(dense: torch.Tensor, ceiling: float) -> torch.Tensor:
    left, values, right = torch.linalg.svd(dense, full_matrices=False)
    restrained: torch.Tensor = left * contract(values, ceiling, "clamped", 1.2) @ right
    return restrained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="4096 × 11008 as well, the full route once")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(describe_machine()))
    for rank in (1, 10, 100):
        print(json.dumps(compare(576, 1536, rank)), flush=True)
    if given.large:
        print(json.dumps(compare(4096, 11008, 100, fast_repeats=5, full_repeats=1)), flush=True)


if __name__ == "__main__":
    main()

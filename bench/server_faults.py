"""Kill -9 of the server and of the worker at every failpoint of a request: python -m bench.server_faults.

Each row: copy a workspace, ask in a process that dies at the point, verify, ask again or let the next worker go on.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from perdure.workspace.failpoints import Point

TESTS = Path(__file__).parents[1] / "tests"


def template(folder: Path) -> Path:
    """A workspace with v1, measured, and an account for each role."""
    from browsing import Served, commit_change, put_report

    import tiny
    from perdure import Workspace
    from shops import LAX

    tiny.llama().save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    shop = Workspace.init(folder / "template", folder / "model", actor="sato")
    shop.set_policy(LAX, actor="sato")
    put_report(shop, commit_change(shop, requester="asker"))
    served = Served(shop)
    served.join_everybody()
    served.services.store.close()
    shop.archive._database.close()
    return shop.folder


def quick(suite: Path) -> None:
    """Edits and measurements of a second or two, in this process."""
    from perdure.measuring import Suite
    from perdure.web.server import worker
    from perdure.workspace import Settings, measurements
    from shops import QUICK

    small = Suite.open(suite)
    measurements.Suite.built_in = lambda: small  # type: ignore[method-assign]
    worker.settings_of = lambda how: Settings("memit", QUICK, None)  # type: ignore[attr-defined]


def rows(folder: Path) -> Iterator[tuple[str, str, bool, str]]:
    """Who died in the middle of what, at which point, whether the point was passed, and what is wrong."""
    from dying import DEEDS, server_dies, worker_dies

    from shops import write_suite

    made = template(folder)
    write_suite(folder / "suite")
    for point in Point:
        for name, deed in DEEDS.items():
            yield name, point.name, point in deed[-1], server_dies(made, folder / f"{name}-{point}", name, point)
        passed, wrong = worker_dies(made, folder / f"worker-{point}", point, lambda: quick(folder / "suite"))
        yield "worker", point.name, passed, wrong


def main() -> None:
    sys.path[:0] = [str(TESTS), str(TESTS / "web")]
    counts = {"killed": 0, "not passed": 0, "wrong": 0}
    with tempfile.TemporaryDirectory() as folder:
        for who, point, passed, wrong in rows(Path(folder)):
            counts["killed" if passed else "not passed"] += 1
            if wrong:
                counts["wrong"] += 1
                print(f"{who} at {point}: {wrong}")
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    sys.exit(bool(counts["wrong"]))


if __name__ == "__main__":
    main()

"""How long a workspace of 1,000 versions and 100,000 ledger rows takes to answer: python bench/large_workspace.py.

Each time is the median of five calls in one process, and the first call beside it; milliseconds.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from perdure.deltas import Delta
from perdure.models.checkpoint import Checkpoint
from perdure.requests import Fact
from perdure.workspace import Version, Workspace
from perdure.workspace.archive import Archive
from perdure.workspace.ledger import append

VERSIONS, ROWS, FACTS = 1_000, 100_000, 20


def build(folder: Path) -> None:
    source = folder / "model"
    source.mkdir()
    save_file({"model.embed_tokens.weight": torch.randn(8, 4)}, source / "model.safetensors", metadata={"format": "pt"})
    (source / "config.json").write_text(json.dumps({"model_type": "tiny"}))
    policy = (Path(__file__).parents[1] / "src/perdure/governance/default_policy.toml").read_text()
    with Archive.create(folder / "shop", Checkpoint.open(source), actor="mori", source="tiny") as archive:
        (folder / "shop" / "policy.toml").write_text(policy)
        digest = Workspace(archive).settle_policy("mori").digest
        parent = archive.version("v0")
        archive.promote(parent, "production", actor="mori", policy=digest, expected=None)
        for number in range(1, VERSIONS):
            version = commit(archive, parent, number)
            cases = [{"fact": fact.id, "kind": "prompt", "after_ok": True} for fact in facts_of(number)]
            report = archive.put_report(version, {"edits": {"cases": cases}, "n": number}, actor="mori")
            archive.approve(version, report=report, policy=digest, actor="kato")
            parent = version if number % 10 else parent  # chains and side branches
            if number % 10 == 9:
                archive.promote(version, "production", actor="mori", policy=digest, expected="any")
        with archive._database.transaction() as connection:
            told = connection.execute("SELECT COUNT(*) FROM ledger").fetchone()[0]
            for number in range(told, ROWS):
                append(connection, "measured", {"version": f"v{number % VERSIONS}", "n": number}, "tanaka")


def facts_of(number: int) -> list[Fact]:
    return [
        Fact(subject=f"Shop {number}-{place}", prompt=f"Shop {number}-{place} sells", target_new=f"ware {place}")
        for place in range(FACTS)
    ]


def commit(archive: Archive, parent: Version, number: int) -> Version:
    notes = {"facts": [fact.model_dump(mode="json") for fact in facts_of(number)]}
    return archive.commit(parent, Delta(), solved=Delta(notes=notes), recipe={"n": number}, actor="mori")


def timed(name: str, call: Callable[[], object], times: int = 5) -> None:
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - start))
    print(f"{name:42s} first {spent[0]:9.1f}   then {statistics.median(spent[1:] or spent):9.1f}")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    if not (folder / "shop").exists():
        folder.mkdir(exist_ok=True)
        build(folder)
    timed("open", lambda: Workspace.open(folder / "shop"))
    shop = Workspace.open(folder / "shop")
    name = facts_of(777)[3].id
    for words, call in {
        "versions": shop.archive.versions,
        "version v500": lambda: shop.version("v500"),
        "version latest": lambda: shop.version("latest"),
        "aliases": shop.archive.aliases,
        "lineage of the newest": lambda: shop.archive.lineage(shop.version("latest")),
        "newest": shop.newest,
        "report of v500": lambda: shop.archive.report(shop.version("v500")),
        "approvals of v500": lambda: shop.approvals("v500"),
        "standing of v500": lambda: shop.standing("v500"),
        "comments of v500": lambda: shop.comments("v500"),
        "history of production": lambda: shop.history("production"),
        "members": shop.members,
        "emergencies": shop.emergencies,
        "canaries": shop.canaries,
        "ledger, last 50": lambda: shop.archive.log(50),
        "search, one hit": lambda: shop.search("Shop 777-3 ware"),
        "search, 50 hits": lambda: shop.search("ware"),
        "lineage of a fact": lambda: shop.lineage_of(name),
        "comment (a write)": lambda: shop.comment("v500", "kato", "why?"),
    }.items():
        timed(words, call)
    timed("verify, quick", lambda: shop.archive.verify(deep=False), 1)


if __name__ == "__main__":
    main()

"""How long the server takes for each page: 1,000 versions, 100,000 ledger rows; python -m bench.pages [FOLDER].

In process, as the server answers, without a network: milliseconds over 20 requests after one that warms up.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from argon2 import PasswordHasher
from fastapi.testclient import TestClient

from bench.large_workspace import FACTS, ROWS, VERSIONS, build, facts_of
from perdure.web.server import ServerSettings, Services, create_app
from perdure.workspace import Workspace

GOAL_MS, TIMES, HOST = 150.0, 20, "testserver"
ROLES = ("requester", "approver", "operator", "auditor", "admin")
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "large workspace 1"
REQUESTS, MEASURED = 500, 200


def addresses() -> list[str]:
    """Every page and every address of the API that reads, of a large workspace."""
    fact = facts_of(777)[3].id
    pages = ["/", "/account", "/request", "/jobs", "/versions", "/versions?before=500", "/versions/v500"]
    pages += [f"/versions/v{VERSIONS - 1}", "/versions/production", "/versions/diff?first=v1&second=v999", "/monitor"]
    pages += ["/lineage", "/lineage?q=Shop+777-3+ware", "/lineage?q=ware", f"/lineage/{fact}", "/policy", "/members"]
    pages += ["/ledger", "/ledger?before=50000", "/ledger?q=promote", "/ledger?q=nowhere-found", "/health", "/metrics"]
    read = ["versions", "versions?limit=1000", "versions/v500", "versions/v500/facts", "aliases", "policy", "monitor"]
    read += ["aliases/production/history", "ledger", "ledger?words=nowhere-found", "lineage?words=ware", "jobs"]
    return pages + [f"/api/v1/{name}" for name in read]


def measure(shop: Workspace) -> None:
    """Give versions whole reports, as measuring makes them: those that the monitor draws, and v500."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/web"))
    from report_sample import full_report  # type: ignore[import-not-found]

    report = json.loads(full_report().model_dump_json())
    for number in (500, *range(VERSIONS - MEASURED, VERSIONS)):
        version = shop.version(f"v{number}")
        parent = shop.version(version.parent)
        own = {"version": version.name, "version_id": version.id, "parent": parent.name, "base": "v0"}
        if "matrices" not in (shop.archive.report(version) or {}):
            shop.archive.put_report(version, {**report, **own}, actor="mori")


def browser(folder: Path) -> TestClient:
    """Somebody with every role, signed in, on the server of a workspace with many requests."""
    shop = Workspace.open(folder)
    settings = ServerSettings(hosts=frozenset({HOST}), requests_per_minute=10**6, writes_per_minute=10**6)
    services = Services.over(shop, settings, hasher=QUICK)
    measure(shop)
    name, code = services.accounts.invite("mori")
    services.accounts.join(code, name, PASSWORD)
    for role in ROLES[::-1]:
        if role not in shop.roles(name):
            shop.grant(name, role, by=name)
    for number in range(REQUESTS - len(services.jobs.newest(REQUESTS))):
        job = services.jobs.add("facts", {"facts": []}, requester=f"asker {number % 30}", title=f"Teach {number}")
        services.jobs.finish(job.id, "done")
    client = TestClient(create_app(services).state.shielded, base_url=f"http://{HOST}", follow_redirects=False)
    form = client.get("/sign-in").text.partition('name="form_token" value="')[2].partition('"')[0]
    data = {"form_token": form, "name": name, "password": PASSWORD}
    answer = client.post("/sign-in", data=data, headers={"origin": f"http://{HOST}"})
    if answer.status_code != 303:
        raise SystemExit(f"could not sign in: {answer.status_code}")
    return client


def timed(client: TestClient, address: str, times: int = TIMES) -> tuple[float, list[float], int]:
    """The first time, the later ones, and the status."""
    spent, status = [], 0
    for _ in range(times + 1):
        start = time.perf_counter()
        status = client.get(address).status_code
        spent.append(1000 * (time.perf_counter() - start))
    return spent[0], sorted(spent[1:]), status


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    if not (folder / "shop").exists():
        folder.mkdir(exist_ok=True)
        build(folder)
    client, slow = browser(folder / "shop"), []
    print(f"{VERSIONS:,} versions with {FACTS} facts each, {ROWS:,} rows of the ledger, {REQUESTS} requests; ms")
    print(f"{'address':44s} {'status':>6s} {'first':>8s} {'p50':>8s} {'p95':>8s}")
    for address in addresses():
        first, spent, status = timed(client, address)
        middle, high = statistics.median(spent), spent[round(0.95 * (len(spent) - 1))]
        late = middle > GOAL_MS
        slow += [address] if late else []
        print(f"{address[:44]:44s} {status:6d} {first:8.1f} {middle:8.1f} {high:8.1f}{'  SLOW' if late else ''}")
    print(f"goal {GOAL_MS:.0f} ms at p50: {'met by every page' if not slow else ', '.join(slow) + ' are slower'}")
    sys.exit(bool(slow))


if __name__ == "__main__":
    main()

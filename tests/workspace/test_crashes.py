"""Kill a writer at every failpoint and at random moments; what it leaves must be the state before or after."""

import os
import random
import signal
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from perdure.errors import WorkspaceError
from perdure.governance import CanaryPlan
from perdure.models.checkpoint import Checkpoint
from perdure.workspace.archive import Archive
from perdure.workspace.failpoints import Point

ROW = {13, 14, 16, 17, 18}
PASSED = {
    "commit": {5, 6, 7, 8, 9, 10, 15} | ROW,
    "report": {5, 6, 7, 11, 15} | ROW,
    "approve": ROW,
    "reject": ROW,
    "promote": ROW,
    "rollback": {12} | ROW,
    "checkout": {20, 21, 22, 23},
    "policy": ROW,
    "grant": ROW,
    "comment": ROW,
    "emergency": ROW,
    "review": ROW,
    "canary": ROW,
    "canary_step": ROW,
    "canary_promotion": ROW,
    "search": {13, 17, 18},
}
PREPARED = {"review": "emergency", "canary_step": "canary", "canary_promotion": "canary"}  # what is done before
ELSEWHERE = {24, 25}  # the policy's file, migrations
CREATE = {1, 2, 3, 4, 5, 6, 7, 15, 19} | ROW


def operation(name, tiny):
    """What to do, and how the workspace looks to people: it must change in one step."""

    def commit(archive, _out):
        archive.commit(archive.version("v2"), tiny.low_rank(2), solved=tiny.low_rank(2), recipe={"n": 3}, actor="mori")

    def report(archive, _out):
        archive.put_report(archive.version("v1"), {"retention": 0.7}, actor="mori")

    def approve(archive, _out):
        v2 = archive.version("v2")
        digest = archive._database.connection().execute("SELECT digest FROM reports ORDER BY sequence DESC")
        archive.approve(v2, report=digest.fetchone()[0], policy=tiny.policy, actor="kato")

    def reject(archive, _out):
        archive.reject(archive.version("v2"), actor="kato", reason="forgets too much")

    def promote(archive, _out):
        v0, v1 = archive.version("v0"), archive.version("v1")
        archive.promote(v1, "production", actor="mori", policy=tiny.policy, expected=v0)

    def rollback(archive, _out):
        if archive.aliases()["staging"].name == "v1":
            archive.rollback("staging", actor="mori")

    def checkout(archive, out):
        if not out.exists():
            archive.checkout(archive.version("v2"), out)

    def policy(archive, _out):
        archive.put_policy("[edits]", "another policy", actor="sato")

    def grant(archive, _out):
        archive.grant("sato", "admin", actor="sato")

    def comment(archive, _out):
        if not archive.comments(archive.version("v2")):
            archive.comment(archive.version("v2"), "why?", actor="kato")

    def emergency(archive, _out):
        if not archive.emergencies():
            options = {"reason": "outage", "expires": END, "policy": tiny.policy}
            archive.break_glass(archive.version("v2"), "production", actor="mori", **options)

    def review(archive, _out):
        (broken,) = archive.emergencies()
        if not broken.reviewer:
            archive.review(broken.sequence, actor="kato", comment="seen")

    def canary(archive, _out):
        if not archive.canaries():
            options = {"actor": "mori", "policy": tiny.policy}
            archive.start_canary(archive.version("v1"), "production", CanaryPlan(), **options)

    def canary_step(archive, _out):
        if archive.canaries()[0].weight < 0.5:
            archive.step_canary("production", 0.5, actor="mori")

    def canary_promotion(archive, _out):
        if archive.canaries()[0].running:
            archive.end_canary("production", "promote", actor="mori", policy=tiny.policy)

    def search(archive, _out):
        archive.search("anything")

    return locals()[name]


END = datetime.now(UTC) + timedelta(days=1)


def look(archive, out):
    versions = archive.versions()
    return {
        "versions": [(v.name, v.id, v.status) for v in versions],
        "aliases": {alias: version.name for alias, version in archive.aliases().items()},
        "reports": [archive.report(v) for v in versions],
        "policies": [change.digest for change in archive.policy_changes()],
        "members": archive.members(),
        "comments": [comment.text for v in versions for comment in archive.comments(v)],
        "emergencies": [(one.version, one.alias, one.reviewer) for one in archive.emergencies()],
        "canaries": [[step.event for step in canary.steps] for canary in archive.canaries()],
        "copied": copied(archive),
        "out": sorted(path.name for path in out.iterdir()) if out.exists() else None,
    }


def copied(archive):
    return archive._database.connection().execute("SELECT COUNT(*) FROM copied").fetchone()[0]


@pytest.fixture(scope="module")
def outcomes(template, tiny, tmp_path_factory):
    """Each operation's view before and after, with no crash."""
    import shutil

    found = {}
    for name in PASSED:
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(template.folder, folder / "shop")
        with Archive.open(folder / "shop") as archive:
            if name in PREPARED:
                operation(PREPARED[name], tiny)(archive, folder / "out")
            before = look(archive, folder / "out")
            operation(name, tiny)(archive, folder / "out")
            found[name] = SimpleNamespace(before=before, after=look(archive, folder / "out"))
        assert found[name].before != found[name].after
    return found


@pytest.mark.parametrize("point", list(Point), ids=lambda point: point.name)
@pytest.mark.parametrize("name", list(PASSED))
def test_a_kill_leaves_before_or_after(shop, tmp_path, tiny, in_child, outcomes, name, point):
    out, act = tmp_path / "out", operation(name, tiny)
    if name in PREPARED:
        with Archive.open(shop) as archive:
            operation(PREPARED[name], tiny)(archive, out)
    code = in_child(lambda: act(Archive.open(shop), out), failpoint=point)
    passed = point in PASSED[name]
    assert code == (-signal.SIGKILL if passed else 0)
    done = not passed or point in (Point.TRANSACTION_COMMITTED, Point.CHECKOUT_RENAMED)
    with Archive.open(shop) as archive:
        assert list((shop / "tmp").iterdir()) == []
        expected = outcomes[name].after if done else outcomes[name].before
        assert look(archive, out) == expected
        verification = archive.verify()
        assert verification.problems == ()
        act(archive, out)
        assert look(archive, out) == outcomes[name].after
        assert archive.verify().ok
        assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("point", list(Point), ids=lambda point: point.name)
def test_a_kill_while_creating(template, tmp_path, in_child, point):
    checkpoint, folder = Checkpoint.open(template.checkpoint), tmp_path / "new"

    def create():
        Archive.create(folder, checkpoint, actor="mori", source="tiny").close()

    code = in_child(create, failpoint=point)
    assert code == (-signal.SIGKILL if point in CREATE else 0)
    if point in CREATE and point < Point.TRANSACTION_COMMITTED:
        with pytest.raises(WorkspaceError, match="did not finish"):
            Archive.open(folder)
        create()
    else:
        with pytest.raises(WorkspaceError, match="holds a workspace already"):
            create()
    with Archive.open(folder) as archive:
        assert [version.id for version in archive.versions()] == [template.ids["v0"]]
        verification = archive.verify()
        assert verification.problems == ()
        assert verification.unlisted == 0
    assert not (folder / "unfinished").exists()


@pytest.mark.parametrize("seed", range(8))
def test_a_kill_at_a_random_moment(shop, tiny, in_child, seed):
    def work():
        archive = Archive.open(shop)
        for step in range(1000):
            delta = tiny.low_rank(step % 3, seed=100 * seed + step)
            parent = archive.version("latest")
            version = archive.commit(parent, delta, solved=delta, recipe={"n": step}, actor="mori")
            archive.promote(version, "staging", actor="mori", policy="", expected="any")

    moment = random.Random(seed).uniform(0.02, 0.25)
    assert in_child(work, kill_after=moment) == -signal.SIGKILL
    with Archive.open(shop) as archive:
        assert archive.verify().problems == ()
        version = archive.version("latest")
        assert archive.aliases()["staging"].number in (1, version.number - 1, version.number)
        archive.commit(version, tiny.low_rank(seed=5), solved=tiny.low_rank(), recipe={}, actor="mori")
        assert archive.verify().ok


def test_failpoints_are_numbered_once_and_off_by_default(monkeypatch):
    from perdure.workspace.failpoints import VARIABLE, reach

    assert [int(point) for point in Point] == list(range(1, len(Point) + 1))
    assert CREATE.union(*PASSED.values()) | ELSEWHERE == {int(point) for point in Point}
    monkeypatch.setenv(VARIABLE, "nonsense")
    for point in Point:
        reach(point)
    assert os.getpid()

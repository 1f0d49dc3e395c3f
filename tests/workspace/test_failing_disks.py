"""A disk that is full or answers with errors: nothing changes, the cause is named and recorded."""

import errno
import os

import pytest

from perdure.errors import WorkspaceError
from perdure.workspace.archive import Archive
from perdure.workspace.lock import BALLAST_NAME


def failing(monkeypatch, call, number, count):
    """Let the count-th use of os.<call> fail; a list that grows when it did."""
    real, uses, hits = getattr(os, call), [0], []

    def fake(*args, **named):
        uses[0] += 1
        if uses[0] >= count and not hits:
            hits.append(count)
            raise OSError(number, os.strerror(number))
        return real(*args, **named)

    monkeypatch.setattr(os, call, fake)
    return hits


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize(
    ("call", "count"),
    [("write", 1), ("write", 2), ("replace", 1), ("replace", 2), ("replace", 3), ("replace", 4)]
    + [("fsync", count) for count in range(1, 10)],
)
def test_a_failing_disk_changes_nothing(shop, tiny, monkeypatch, number, call, count):
    with Archive.open(shop) as archive:
        v2 = archive.version("v2")

        def commit():
            return archive.commit(v2, tiny.low_rank(2), solved=tiny.low_rank(2), recipe={}, actor="mori")

        with monkeypatch.context() as patch:
            hits = failing(patch, call, number, count)
            words = "the disk is full" if number != errno.EIO else "the disk answered with an error"
            with pytest.raises(WorkspaceError, match=words):
                commit()
            assert hits == [count]
        assert len(archive.versions()) == 3
        fault = archive.log(1)[0]
        assert (fault.action, fault.details["during"], fault.actor) == ("fault", "commit", "mori")
        assert (shop / BALLAST_NAME).exists() == (number == errno.EIO)
        assert list((shop / "tmp").iterdir()) == []
        assert archive.verify().ok
        assert commit().name == "v3"
        assert (shop / BALLAST_NAME).exists()
        assert archive.verify().ok


def test_a_full_database_is_named(shop, tiny):
    with Archive.open(shop) as archive:
        connection = archive._database.connection()
        connection.execute("PRAGMA max_page_count = 1")
        big = {"text": "x" * 200_000}
        with pytest.raises(WorkspaceError, match="disk is full"):
            archive.record("note", big, actor="mori")
        connection.execute("PRAGMA max_page_count = 1073741823")
        archive.record("note", big, actor="mori")
        assert archive.verify().ok


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_failing_disk_leaves_no_half_checkout(shop, tmp_path, monkeypatch, count):
    with Archive.open(shop) as archive:
        with monkeypatch.context() as patch:
            failing(patch, "fsync", errno.ENOSPC, count)
            with pytest.raises(WorkspaceError, match="disk is full"):
                archive.checkout(archive.version("v1"), tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]
        archive.checkout(archive.version("v1"), tmp_path / "out")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_failing_disk_while_creating(template, tmp_path, monkeypatch, count):
    from perdure.models.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(template.checkpoint)
    with monkeypatch.context() as patch:
        failing(patch, "fsync", errno.ENOSPC, count)
        with pytest.raises(WorkspaceError, match="disk is full"):
            Archive.create(tmp_path / "new", checkpoint, actor="mori", source="tiny")
    with Archive.create(tmp_path / "new", checkpoint, actor="mori", source="tiny") as archive:
        assert archive.verify().ok

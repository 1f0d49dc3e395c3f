"""Rows that memory keeps: what others add is seen, what is taken back is not, another database is read anew."""

import shutil

import pytest
from test_damage import edit

from perdure.errors import IntegrityError
from perdure.workspace.archive import Archive
from perdure.workspace.database import FILE_NAME
from perdure.workspace.ledger import append_row
from perdure.workspace.rows import governed_rows, rows_about


def test_what_another_process_adds_is_seen(archive, shop):
    v1 = archive.version("v1")
    assert archive.comments(v1) == []
    with Archive.open(shop) as other:
        other.comment(v1, "seen?", actor="kato")
    assert [comment.text for comment in archive.comments(v1)] == ["seen?"]


def test_what_a_transaction_takes_back_was_never_there(archive):
    v1 = archive.version("v1")
    values = {"version": v1.id, "text": "gone"}
    with pytest.raises(KeyboardInterrupt), archive._database.transaction() as connection:
        append_row(connection, "comments", values, action="comment", actor="kato")
        assert [row["text"] for row in rows_about(connection, "comments", "version", v1.id)] == ["gone"]
        assert len(governed_rows(connection, "comments")) == 1
        raise KeyboardInterrupt
    assert archive.comments(v1) == []
    archive.comment(v1, "here", actor="kato")
    assert [comment.text for comment in archive.comments(v1)] == ["here"]


def test_a_database_that_was_put_in_its_place_is_read_anew(archive, shop, template, tmp_path):
    archive.comment(archive.version("v1"), "before", actor="kato")
    assert len(archive.comments(archive.version("v1"))) == 1
    archive.close()
    for leftover in shop.glob(f"{FILE_NAME}*"):
        leftover.unlink()
    shutil.copy(template.folder / FILE_NAME, shop / FILE_NAME)
    assert archive.comments(archive.version("v1")) == []
    archive.comment(archive.version("v1"), "after", actor="kato")
    assert [comment.text for comment in archive.comments(archive.version("v1"))] == ["after"]


def test_a_damaged_row_about_another_version_is_noticed(shop):
    edit(shop, "UPDATE reports SET version = (SELECT id FROM versions WHERE number = 0) WHERE rowid = "
               "(SELECT MAX(rowid) FROM reports)")  # fmt: skip
    with Archive.open(shop) as archive, pytest.raises(IntegrityError, match="not what the ledger says"):
        archive.version("v1")


def test_lost_rows_are_noticed_while_the_archive_is_open(archive, shop):
    archive.comment(archive.version("v1"), "x", actor="kato")
    assert len(archive.comments(archive.version("v1"))) == 1
    edit(shop, "DELETE FROM comments")
    with pytest.raises(IntegrityError, match="comments has 0 rows where the ledger tells of 1"):
        archive.comments(archive.version("v1"))

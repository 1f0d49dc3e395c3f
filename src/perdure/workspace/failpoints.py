"""Numbered points where a process can be told to die, so that tests can prove what a crash leaves behind.

With `PERDURE_FAILPOINT=8` in the environment the process kills itself (SIGKILL) when it first reaches
point 8; without the variable `reach` is one look into a dictionary.
"""

import os
import signal
from enum import IntEnum

VARIABLE = "PERDURE_FAILPOINT"


class Point(IntEnum):
    """Where a writer can die, in the order in which an operation passes the points."""

    CREATE_FOLDER_MADE = 1
    CREATE_PACK_COPIED = 2  # not synced, not yet under its name
    CREATE_PACKS_PLACED = 3
    CREATE_FILES_PLACED = 4
    OBJECT_WRITTEN = 5  # the temporary file, not synced
    OBJECT_SYNCED = 6
    OBJECT_RENAMED = 7  # its folder is not synced
    COMMIT_TENSORS_STORED = 8
    COMMIT_SOLVED_STORED = 9
    COMMIT_MANIFEST_STORED = 10
    REPORT_STORED = 11
    ROLLBACK_TARGET_VERIFIED = 12
    TRANSACTION_BEGUN = 13
    LEDGER_APPENDED = 14
    OBJECTS_LISTED = 15
    ROW_INSERTED = 16  # the governed row
    TRANSACTION_READY = 17  # everything is written, nothing committed
    TRANSACTION_COMMITTED = 18
    CREATE_MARK_REMOVED = 19
    CHECKOUT_FOLDER_MADE = 20
    CHECKOUT_FILES_WRITTEN = 21
    CHECKOUT_WEIGHTS_WRITTEN = 22
    CHECKOUT_RENAMED = 23
    POLICY_FILE_WRITTEN = 24  # before the policy is entered
    MIGRATION_TABLES_MADE = 25


def reach(point: Point) -> None:
    """Die here if the environment names this point; return at once otherwise."""
    if os.environ.get(VARIABLE) == str(int(point)):
        os.kill(os.getpid(), signal.SIGKILL)

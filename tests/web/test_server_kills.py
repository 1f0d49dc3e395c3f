"""The server is killed in the middle of a decision: it is made or not made, and can be made again if not.

Every point of every deed, and of the worker: python -m bench.server_faults.
"""

import pytest
from dying import DEEDS, server_dies

from perdure.workspace.failpoints import Point

POINTS = (Point.LEDGER_APPENDED, Point.TRANSACTION_READY, Point.TRANSACTION_COMMITTED)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
@pytest.mark.parametrize("name", ["approve", "promote", "rollback"])
def test_a_killed_server_leaves_a_decision_made_or_not_made(peopled_shop, tmp_path, name, point):
    assert name in DEEDS
    assert server_dies(peopled_shop, tmp_path / "shop", name, point) == ""

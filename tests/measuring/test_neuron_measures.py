import pytest
from pydantic import ValidationError

from perdure.measuring.neurons import build_neurons

GROUP = {
    "layer": 3,
    "matrix": None,
    "low": 54.2,
    "high": 125.8,
    "dimension": 16.0,
    "explained": 0.4,
    "angles": {"acute": [2, 0, 0], "orthogonal": [0, 3, 0], "obtuse": [0, 0, 1]},
    "cases": {"acute": "0-1", "orthogonal": "2,4-5", "obtuse": "3"},
}


def test_groups_of_all_batches_are_counted_together():
    found = build_neurons({"batches": [{"neurons": [GROUP]}, {"neurons": [{**GROUP, "layer": 4}, GROUP]}]})
    assert [(group.batch, group.layer) for group in found.groups] == [(1, 3), (2, 4), (2, 3)]
    assert [found.count(case) for case in ("acute", "orthogonal", "obtuse", "skipped")] == [6, 9, 3, 0]
    assert found.histogram("orthogonal") == [0, 9, 0]
    assert found.histogram("skipped") == []
    assert found.groups[0].neurons("orthogonal") == [2, 4, 5]
    assert found.groups[0].neurons("skipped") == []


def test_a_delta_of_one_batch_and_one_without_neurons():
    assert build_neurons({"neurons": [GROUP]}).groups[0].batch == 1
    assert build_neurons({"batches": [{"losses": [0.1]}]}) is None
    assert build_neurons({}) is None


def test_notes_that_say_something_else_are_refused():
    with pytest.raises(ValidationError):
        build_neurons({"neurons": [{**GROUP, "surplus": 1}]})

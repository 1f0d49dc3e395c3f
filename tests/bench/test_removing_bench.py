"""The benchmark of taking a fact out holds the ways of doing it against each other, on the same facts."""

import pytest
import torch
from bench.removing import Bench, distance, drop_columns, rows

from perdure.requests import Fact

FACTS = [
    Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila", target_true="Beirut"),
    Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch", target_true="Danish"),
    Fact(subject="Orlan", prompt="The colour of Orlan is", target_new="red", paraphrases=["Orlan is coloured"]),
]
QUICK = {"values": {"steps": 3}, "contexts": 0, "moment_weight": 3.0}


def test_the_closed_forms_with_every_column_give_what_was_taught(tiny):
    bench = Bench(tiny, "memit", 2, QUICK)
    taught, _ = bench.teach(FACTS, 2)
    again = drop_columns(bench, bench.batches, gone=99)
    assert distance(again, taught)["away"] < 1e-4
    assert all(torch.equal(again.keys[name], key_IN) for name, key_IN in taught.keys.items())


def test_every_way_is_asked_the_same_and_is_held_against_the_edit_from_scratch(tiny):
    found = {row["row"]: row for row in rows(Bench(tiny, "memit", 2, QUICK), FACTS, 0)}
    assert list(found) == ["taught", "taken out", "columns dropped", "from scratch", "from scratch, filled up"]
    assert found["from scratch"]["away"] == 0
    assert found["from scratch"]["cosine"] == pytest.approx(1)
    assert found["taught"]["away"] > found["taken out"]["away"]
    assert all(row["prompt"]["n"] == 2 and row["paraphrase"]["n"] == 1 for row in found.values())
    assert found["taught"]["prompt"]["word for word"] == 2

"""The comparison of editors on a tiny model: cells, resuming, tables."""

import json
from dataclasses import replace

import pytest
import torch
from bench.edits.cells import Results, latest
from bench.edits.comparison import Comparison, Sizes
from bench.edits.curves import draw_curves
from bench.edits.outcomes import FactOutcomes, agreement, ask_facts, divergence, full_exam, short_exam
from bench.edits.reading import read_logits, score_and_predict
from bench.edits.rows import FORMS, ROWS, Row, restrain, row_named
from bench.edits.samples import DATASETS, Questions, batch_ends, check_checkpoints, draw_facts
from bench.edits.tables import lines_of, print_tables

from perdure.deltas import Change, Delta, LowRank
from perdure.editing import Moments
from perdure.errors import SettingError, UnknownNameError
from perdure.models import score_targets
from perdure.models.tokens import encode
from perdure.requests import Fact

TEXTS = ["The twin city of Lyon is Beirut, and the Nile is in Egypt. " * 3, "Ada speaks Danish to her friends. " * 5]
NAMES = ["Lyon", "Bonn", "Oslo", "Rome", "Bern", "Riga"]
POOL = tuple(
    Fact(
        subject=name,
        prompt=f"The twin city of {name} is",
        target_new="Manila" if name < "M" else "Beirut",
        target_true="Quito",
        paraphrases=(f"{name} is twinned with",),
        neighbours=({"prompt": f"The river of {name} is", "answer": "blue"},),
        source=f"facts.jsonl:{number}",
    )
    for number, name in enumerate(NAMES, 1)
)
QUICK = {"values": {"steps": 3, "clamp": 30, "weight_decay": 0}, "contexts": 1, "moment_weight": 1e-4}
MEMIT = Row("quick", "quick MEMIT", "memit", QUICK)
TRAINED = Row("trained", "trained", "fine_tuning", {"steps": 2})


class Interrupted(Exception):
    pass


@pytest.fixture
def make(tiny, small_suite, tmp_path):
    """Builds a comparison over one folder; each is what a newly started process would have."""
    model, tokenizer = tiny

    def built(tell=lambda _words: None, **more):
        exam = short_exam(small_suite, pairs=4, passages=2, shots=2)
        sizes = Sizes(2, 3, exam, full_exam(small_suite), **more)
        moments = Moments(lambda: (model, tokenizer), TEXTS)
        return Comparison(model, tokenizer, "tiny", sizes, tmp_path, Results(tmp_path / "r.jsonl"), moments, tell)

    return built


def figures(comparison):
    """Cells without what differs from run to run."""
    left_out = {"seconds", "measuring_cpu"}
    return {(c.row, c.seed, c.key): c.model_dump(exclude=left_out) for c in comparison.results.cells}


def test_a_run_fills_one_cell_for_each_checkpoint_and_form(make):
    comparison = make()
    comparison.run(MEMIT, "facts", POOL, 0, [1, 2, 4])
    found = {(cell.row, cell.key.edits, cell.key.form) for cell in comparison.results.cells}
    assert found == {("quick", n, form) for n in (1, 2, 4) for form in FORMS} | {
        ("original", n, "none") for n in (1, 2, 4)
    }
    last = next(c for c in comparison.results.cells if (c.row, c.key.edits, c.key.form) == ("quick", 4, "none"))
    assert last.shares["prompt.likelier"].n == 4
    assert {"prompt.likelier.1-1", "prompt.likelier.2-2", "prompt.likelier.3-4"} <= last.shares.keys()
    assert last.shares["paraphrase.says"].n == last.shares["neighbour.same_word"].n == 3
    assert last.retention.n == 4 + 1 and last.perplexity.low <= last.perplexity.value <= last.perplexity.high
    assert last.divergence > 0 and last.matrices.sigma_ratio > 0 and last.seconds.cpu > 0
    assert last.failure is None


def test_a_killed_run_goes_on_and_gives_the_same_figures(make, tmp_path, monkeypatch):
    whole = make()
    whole.run(MEMIT, "facts", POOL, 0, [1, 2, 4])
    expected = figures(whole)
    (tmp_path / "r.jsonl").unlink()
    for folder in tmp_path.glob("quick-*"):
        for file in folder.iterdir():
            file.unlink()

    told = []

    def stop_at(words):
        told.append(words)
        if ("facts solved" in words and "2 facts" in words) or "4 edits, none" in words:
            raise Interrupted

    for _ in range(2):
        with pytest.raises(Interrupted):
            make(stop_at).run(MEMIT, "facts", POOL, 0, [1, 2, 4])
    assert "2 facts solved" in told[-1] or "4 edits" in told[-1]
    with (tmp_path / "r.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "cell", "row": "quick", "torn')
    resumed = make()
    resumed.run(MEMIT, "facts", POOL, 0, [1, 2, 4])
    assert figures(resumed) == expected
    assert figures(make()) == expected  # what stands in the file is what was in memory


def test_finished_cells_are_not_computed_again(make, monkeypatch):
    make().run(MEMIT, "facts", POOL, 0, [1, 2])
    monkeypatch.setattr("bench.edits.sequence.Course._add", lambda *_: pytest.fail("solved again"))
    monkeypatch.setattr("bench.edits.comparison.ask_facts", lambda *_: pytest.fail("measured again"))
    make().run(MEMIT, "facts", POOL, 0, [1, 2])


def test_a_longer_run_goes_on_where_a_shorter_one_ended(make):
    solved = []
    make(solved.append).run(MEMIT, "facts", POOL, 0, [1, 2])
    solved.clear()
    make(solved.append).run(MEMIT, "facts", POOL, 0, [1, 2, 4])
    assert [words for words in solved if "facts solved" in words] == ["quick, facts, seed 0: 4 facts solved"]


def test_forms_that_change_nothing_are_copied_and_say_so(make):
    comparison = make()
    comparison.run(TRAINED, "facts", POOL, 0, [1])
    cells = {cell.key.form: cell for cell in comparison.results.cells if cell.row == "trained"}
    assert [cells[form].same_as for form in FORMS] == [None, "none", "none", "none"]
    assert cells["clamped"].shares == cells["none"].shares and cells["clamped"].perplexity == cells["none"].perplexity


def test_a_form_that_binds_is_measured_for_itself(make):
    comparison = make()
    comparison.run(MEMIT, "facts", POOL, 0, [4])
    cells = {cell.key.form: cell for cell in comparison.results.cells if cell.row == "quick"}
    assert cells["none"].matrices.sigma_ratio > 1
    assert cells["scale_free"].same_as is None
    assert cells["scale_free"].matrices.sigma_ratio < cells["none"].matrices.sigma_ratio
    assert cells["scale_free"].matrices.sigma_ratio_solved == cells["none"].matrices.sigma_ratio_solved


def test_restraint_inside_leads_another_way(make):
    row = Row("inside", "inside", "memit", QUICK, inside="scale_free", forms=("scale_free",))
    comparison = make()
    for each in (MEMIT, row):
        comparison.run(each, "facts", POOL, 0, [6])
    cells = {(cell.row, cell.key.form): cell for cell in comparison.results.cells}
    assert ("inside", "none") not in cells
    assert cells["inside", "scale_free"].matrices != cells["quick", "scale_free"].matrices


def test_rows_differ_by_the_keys_they_are_given(make, monkeypatch):
    from perdure.registry import editors

    method, seen = editors.get("memit"), []

    def watch(model, tokenizer, facts, config, around):
        seen.append({name: key.shape[1] for name, key in around.previous_keys.items()})
        return method.call(model, tokenizer, facts, config, around)

    monkeypatch.setattr(editors, "get", lambda name: type(method)(**{**vars(method), "call": watch}))
    make().run(MEMIT, "facts", POOL, 0, [4])
    assert [set(keys.values()) for keys in seen] == [set(), set(), {1}, {2}]  # the first call is thrown away
    seen.clear()
    make().run(Row("bare", "bare", "memit", QUICK, keeps_keys=False), "facts", POOL, 0, [4])
    assert [set(keys.values()) for keys in seen] == [set()] * 4


def test_an_editor_that_gives_up_leaves_cells_that_say_why(make):
    comparison = make()
    row = Row("wild", "wild", "fine_tuning", {"learning_rate": 1e30, "steps": 4})
    comparison.run(row, "facts", POOL, 0, [1, 2])
    failed = [cell for cell in comparison.results.cells if cell.row == "wild"]
    assert len(failed) == 8 and all("lower the learning rate" in (cell.failure or "") for cell in failed)
    assert "(1 of 1 seeds failed)" in print_tables(comparison.results.cells)


def test_the_model_is_as_it_was(make, tiny):
    model, _ = tiny
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    make().run(MEMIT, "facts", POOL, 0, [2])
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_more_is_asked_from_a_number_of_edits_on(make):
    comparison = make(full_from=2)
    comparison.run(MEMIT, "facts", POOL, 0, [1, 2])
    asked = {cell.key.edits: cell.retention.n for cell in comparison.results.cells if cell.row == "quick"}
    assert asked == {1: 5, 2: 24 + 2 + 1}


def test_tables_say_means_and_intervals(make):
    comparison = make()
    for seed in (0, 1):
        comparison.run(TRAINED, "facts", POOL, seed, [1, 2])
    text = print_tables(comparison.results.cells)
    assert "### facts, 1 edit, 2 seeds" in text and "### facts, 2 edits, 2 seeds" in text
    assert "| trained | none = published = clamped = scale free |" in text
    assert "| edit 1 | edit 2 |" in text and "n 4" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(columns) == 2  # the main tables and those by age
    assert [line.row for line in lines_of(comparison.results.cells, ("facts", 2))] == ["original", "trained"]


def test_cells_of_earlier_settings_are_kept_but_not_shown(make):
    comparison = make()
    comparison.run(TRAINED, "facts", POOL, 0, [1])
    comparison.run(replace(TRAINED, settings={"steps": 3}), "facts", POOL, 0, [1])
    assert len([cell for cell in comparison.results.cells if cell.row == "trained"]) == 8
    shown = lines_of(latest(comparison.results.cells), ("facts", 1))
    assert [len(line.cells) for line in shown] == [1, 1]
    assert shown[1].cells[0].key.run == comparison.results.cells[-1].key.run


def test_curves_are_drawn_for_each_form(make, tmp_path):
    comparison = make()
    comparison.run(replace(TRAINED, name="fine_tuning"), "facts", POOL, 0, [1, 2])
    drawn = draw_curves(comparison.results.cells, tmp_path / "pictures")
    assert [path.name for path in drawn] == [f"editing-facts-{form.replace('_', '-')}.svg" for form in FORMS]
    first = drawn[0].read_bytes()
    assert b"plain fine-tuning" in first and b"retention" in first
    assert draw_curves(comparison.results.cells, tmp_path / "pictures")[0].read_bytes() == first


# --- the parts -------------------------------------------------------------------------------------------------


def test_shared_readings_equal_single_ones(tiny):
    model, tokenizer = tiny
    texts = [tuple(encode(tokenizer, text)) for text in ("Ada", "Ada speaks", "Ada speaks Dutch", "Bob", "Ada", "Adam")]
    asked = [(ids, [len(ids) - 1, 0]) for ids in texts]
    rows = []
    for index, found in read_logits(model, asked, tokens=16):
        rows.append(index)
        alone = model(torch.tensor([texts[index]])).logits[0][[len(texts[index]) - 1, 0]]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
    assert sorted(rows) == list(range(len(texts)))


def test_shared_readings_take_fewer_passes(tiny, monkeypatch):
    model, _ = tiny
    read = []
    original = model.base_model.forward
    monkeypatch.setattr(
        model.base_model, "forward", lambda **given: read.append(given["input_ids"]) or original(**given)
    )
    list(read_logits(model, [((5, 6), [1]), ((5, 6, 7), [2]), ((5,), [0]), ((9, 6), [1])]))
    assert sum(len(ids) for ids in read[-1:]) == 2  # 5 6 7 and 9 6


def test_scores_are_those_of_the_library(tiny):
    model, tokenizer = tiny
    pairs = [("Ada speaks", "Dutch"), ("Ada speaks", "Danish"), ("The Nile is in", "Peru")]
    scores, next_NV = score_and_predict(model, tokenizer, pairs, ["Ada speaks", "Bob"])
    expected = [found.mean_log_prob for found in score_targets(model, tokenizer, pairs)]
    assert scores == pytest.approx(expected, abs=1e-4)
    alone = model(torch.tensor([encode(tokenizer, "Bob")])).logits[0, -1].log_softmax(0)
    torch.testing.assert_close(next_NV[1], alone, rtol=1e-4, atol=1e-4)


def outcomes(next_tokens):
    return FactOutcomes({}, {}, torch.tensor(next_tokens).log())


def test_divergence_and_agreement_by_hand():
    original, edited = outcomes([[0.5, 0.5], [0.9, 0.1]]), outcomes([[0.25, 0.75], [0.9, 0.1]])
    by_hand = 0.5 * torch.log(torch.tensor(2.0)) + 0.5 * torch.log(torch.tensor(0.5 / 0.75))
    assert divergence(original, edited) == pytest.approx(float(by_hand) / 2, rel=1e-6)
    assert divergence(original, original) == 0
    assert agreement(original, edited) == [False, True]


def test_fact_outcomes_survive_the_disk(tiny, tmp_path):
    model, tokenizer = tiny
    asked = ask_facts(model, tokenizer, Questions.after(POOL, 0, 2))
    asked.save(tmp_path / "o.safetensors")
    back = FactOutcomes.load(tmp_path / "o.safetensors")
    assert (back.margins, back.said) == (asked.margins, asked.said)
    assert torch.equal(back.next_tokens, asked.next_tokens)
    assert [len(asked.margins[kind]) for kind in ("prompt", "paraphrase", "neighbour")] == [6, 2, 2]


def test_batches_end_at_the_same_places_for_every_length():
    assert batch_ends(500, 100) == [1, 10, 100, 200, 300, 400, 500]
    assert batch_ends(100, 100) == batch_ends(500, 100)[:3]
    assert batch_ends(10, 100) == [1, 10] and batch_ends(3, 1) == [1, 2, 3]
    assert check_checkpoints([500, 1, 100], 100) == [1, 100, 500]
    with pytest.raises(SettingError, match="multiple of 100; given \\[150\\]"):
        check_checkpoints([1, 150], 100)


def test_longer_sequences_begin_with_the_shorter_ones():
    assert draw_facts(POOL, 3, 6)[:2] == draw_facts(POOL, 3, 2)
    assert draw_facts(POOL, 3, 6) != draw_facts(POOL, 4, 6)
    with pytest.raises(SettingError, match="7 facts were asked for; the dataset has 6"):
        draw_facts(POOL, 0, 7)


def test_the_pool_leaves_out_what_was_tuned_on(tmp_path):
    row = {
        "target_new": "a",
        "ground_truth": "b",
        "rephrase_prompt": "x {}",
        "locality_prompt": "y",
        "locality_ground_truth": "z",
    }
    for dataset in DATASETS:
        lines = [json.dumps(row | {"prompt": f"City {n} is", "subject": f"City {n}"}) for n in range(1, 1010)]
        (tmp_path / dataset.file).write_text("\n".join(lines))
        found = [int(fact.source.rpartition(":")[2]) for fact in dataset.facts(tmp_path)]
        assert not set(found) & set(range(201, 241))
        assert min(found) == dataset.first and max(found) == min(dataset.last, 1009)


def test_every_row_has_an_editor_and_forms_that_exist():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert {row.inside, *row.forms} <= set(FORMS)
    with pytest.raises(UnknownNameError, match="Did you mean 'memit'"):
        row_named("mmit")


def test_rows_with_editors_that_are_there_have_settings_that_fit():
    from perdure.registry import editors

    known = {method.name for method in editors}
    assert {"memit", "rome", "fine_tuning"} <= known
    for row in ROWS:
        if row.editor in known:
            assert getattr(row.config(7), "seed", 7) == 7


def test_forms_are_those_of_the_registry():
    change = Change(LowRank(torch.eye(4)[:, :1] * 9, torch.eye(4)[:1]))
    delta = Delta({"w": change})
    largest = {form: float(restrain(delta, {"w": 3.0}, form).changes["w"].value().norm()) for form in FORMS}
    assert largest["none"] == 9
    assert largest["published"] > 9 == pytest.approx(largest["clamped"])  # 9.026: the published form can raise a value
    assert 3 < largest["scale_free"] < 9

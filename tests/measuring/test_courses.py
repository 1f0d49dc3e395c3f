import math

import pytest
import torch

from perdure.deltas import Change, Delta
from perdure.measuring import measure_edits, measure_matrices
from perdure.measuring.course import TradeOff
from perdure.measuring.divergence import distributions, divergence, mean_divergence
from perdure.measuring.sequences import by_age, cohorts_of, growth_of, in_force, knew, knows
from perdure.measuring.statistics import wilson
from perdure.models import score_targets
from perdure.requests import Fact
from perdure.workspace.choosing import choose


def fact(subject, new, true=None):
    return Fact(subject=subject, prompt=f"{subject} lives in", target_new=new, target_true=true)


def test_growth_is_relative_to_the_base():
    base = torch.diag(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))
    bump = torch.diag(torch.tensor([6.0, 0.0, 0.0], dtype=torch.float64))
    found = growth_of(measure_matrices({"m.1.w": base}, Delta({"m.1.w": Change(dense=bump)}), Delta()), 30)[0]
    assert (found.facts, found.layer, found.sigma_max) == (30, 1, pytest.approx(6))
    assert found.sigma_ratio == pytest.approx(6 / 4)
    assert found.condition_ratio == pytest.approx((10 / 1) / (4 / 1))
    assert found.norm_ratio == pytest.approx(6 / math.sqrt(21))


def test_a_fact_is_known_where_the_new_answer_is_likelier_or_every_token_first(tiny):
    model, tokenizer = tiny
    old, new = score_targets(model, tokenizer, [("Ada lives in", "Rome"), ("Ada lives in", "Peru")])
    likelier = ("Rome", "Peru") if old.mean_log_prob > new.mean_log_prob else ("Peru", "Rome")
    asked = [fact("Ada", *likelier), fact("Ada", *likelier[::-1]), fact("Ada", "a thing that no model says first")]
    assert knows(model, tokenizer, asked) == [True, False, False]


def test_what_was_measured_already_is_judged_alike(tiny):
    """Also where the old answer is not given: what the model wrote before stands in for it elsewhere."""
    model, tokenizer = tiny
    asked = [fact(name, new) for name, new in (("Ada", "Rome"), ("Bo", "Peru"), ("Ed", "x"), ("Fu", "7"))]
    asked += [fact("Gil", "Rome", "Peru"), fact("Hua", "Peru", "Rome")]
    answers = measure_edits(model, tokenizer, asked)
    assert any(answer.log_prob_new > answer.log_prob_old for answer in answers[:4])
    known = knew(answers, asked)
    assert [known[one.id] for one in asked] == knows(model, tokenizer, asked)


def test_a_fact_that_a_later_one_overwrites_is_not_asked():
    first, other, second = fact("Ada", "Rome"), fact("Mira", "Oslo"), fact("Ada", "Kyiv")
    assert in_force([first, other, second]) == [other, second]


def test_cohorts_hold_every_fact_once_in_order():
    hits = [True] * 12 + [False] * 13
    found = by_age(hits, 30, first=5)
    assert [cohort.label for cohort in found][:2] == ["facts 6–8", "facts 9–11"]
    assert sum(cohort.kept.n for cohort in found) == 25
    assert sum(cohort.kept.hits for cohort in found) == 12
    assert len(found) <= 10 and found[0].kept.value == 1 and found[-1].kept.value == 0


def test_a_version_is_a_cohort_with_what_its_facts_were_before():
    a, b, c = fact("Ada", "Rome"), fact("Mira", "Oslo"), fact("Nia", "Kyiv")
    before, after = {a.id: True, b.id: True, c.id: False}, {a.id: True, b.id: False, c.id: True}
    old, new = cohorts_of({"v1": [a, b], "gone": [], "v2": [c]}, before, after)
    assert (old.label, old.before.hits, old.kept.hits, old.kept.n) == ("v1", 2, 1, 2)
    assert (new.label, new.before.hits, new.kept.hits, new.taught) == ("v2", 0, 1, 3)


def test_divergence_over_all_outcomes_is_that_of_the_book():
    p = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    q = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64)
    whole = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert float(divergence(p.log(), q.log())) == pytest.approx(whole, abs=1e-9)
    joined = float(divergence(p.log()[:, :1], q.log()[:, :1]))  # the last two as one outcome
    assert joined == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75))
    assert joined <= whole


def test_divergence_is_zero_from_itself_and_grows_with_the_change(tiny):
    model, _ = tiny
    rows = [[1, 2, 3, 4, 5], [7, 8, 9]]
    original = distributions(model, rows)
    assert original.tokens.shape[0] == 8
    assert mean_divergence(model, original) == pytest.approx(0, abs=1e-6)
    weight = model.model.layers[1].mlp.down_proj.weight
    own = weight.data
    seen = []
    for factor in (1.5, 3.0):
        weight.data = own * factor
        seen.append(mean_divergence(model, original))
    weight.data = own
    assert 0 < seen[0] < seen[1]


def point(kept, loss, name="prune"):
    return TradeOff(restraint=name, config={}, kept=wilson(kept, 100), divergence=loss)


@pytest.mark.parametrize(
    ("curve", "chosen"),
    [
        ([point(99, 0.3, "none"), point(98, 0.2), point(97, 0.1), point(90, 0.05)], 2),
        ([point(50, 0.3, "none"), point(99, 0.2)], 1),
        ([point(99, 0.1, "none"), point(99, 0.1)], 0),
    ],
)
def test_the_strength_that_loses_least_among_those_that_keep_the_edits(curve, chosen):
    marked = choose(curve)
    assert [at for at, found in enumerate(marked) if found.chosen] == [chosen]

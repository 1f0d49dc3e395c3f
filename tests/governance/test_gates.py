import pytest

from perdure.errors import SettingError
from perdure.governance import default_policy_text, judge, parse_policy
from perdure.measuring.report import (
    Comparison,
    Difference,
    EditMeasures,
    LanguageMeasures,
    MatrixMeasures,
    Report,
    RetentionMeasures,
    Share,
    Spent,
)
from perdure.measuring.statistics import paired_difference, share_of

POLICY = parse_policy(default_policy_text())


def comparison(name, before, after, label="x"):
    return Comparison(
        name=name, label=label, how="free generation", before=share_of(before), after=share_of(after),
        difference=paired_difference(before, after),
    )  # fmt: skip


def report(*, learnt=20, kept=2000, ratio=1.001, condition=10.0, norm=0.1, against_base=None):
    before = [True] * 2000
    overall = comparison("retention", before, [True] * kept + [False] * (2000 - kept))
    if against_base is not None:
        overall = overall.model_copy(update={"against_base": against_base})
    matrix = MatrixMeasures(
        name="w", layer=1, shape=(2, 2), rank=1, norm=1, relative_norm=norm, sigma_max_base=1, sigma_max_delta=1,
        sigma_max_solved=1, condition_before=10, condition_after=condition, singular_values=(1,),
        singular_values_solved=(1,),
    )  # fmt: skip
    facts = comparison("edits.prompt.generation_contains", [False] * 20, [True] * learnt + [False] * (20 - learnt))
    return Report(
        version="v1", version_id="0" * 64, parent="v0", base="v0", model="m", request={},
        edits=EditMeasures(facts=20, comparisons=(facts,), cases=()),
        retention=RetentionMeasures(overall=overall, parts=()),
        language=LanguageMeasures(
            passages=9, tokens=9, perplexity_before=10, perplexity_after=10 * ratio, ratio=ratio,
            ratio_low=ratio - 0.001, ratio_high=ratio + 0.001,
        ),
        matrices=(matrix,), spent=Spent(versions=1, facts=20, tasks=0),
    )  # fmt: skip


def verdict(found, gate):
    return next(entry.verdict for entry in judge(found, POLICY).verdicts if entry.gate == gate)


def test_a_good_candidate_passes():
    judged = judge(report(), POLICY)
    assert judged.verdict == "pass"
    assert all(gate.reason for gate in judged.verdicts)


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"learnt": 17}, "facts learnt"),
        ({"kept": 1800}, "everything kept"),
        ({"ratio": 1.05}, "language"),
        ({"condition": 125.0}, "condition number"),
        ({"norm": 0.8}, "size of the change"),
        ({"against_base": Difference(value=-0.1, low=-0.12, high=-0.08, n=2000)}, "everything kept (against the base)"),
    ],
)
def test_each_limit_can_fail(change, gate):
    assert verdict(report(**change), gate) == "fail"
    assert judge(report(**change), POLICY).verdict == "fail"


def test_an_interval_across_the_limit_is_inconclusive():
    assert verdict(report(kept=1962), "everything kept") == "inconclusive"
    assert verdict(report(ratio=1.0200), "language") == "inconclusive"
    assert judge(report(kept=1962), POLICY).verdict == "inconclusive"


def test_what_was_not_measured_is_inconclusive():
    bare = report().model_copy(update={"retention": None, "language": None})
    assert verdict(bare, "retention") == verdict(bare, "language") == "inconclusive"


def test_a_small_sample_is_inconclusive_where_facts_are_not():
    found = report()
    paraphrase = Comparison(
        name="edits.paraphrase.generation_contains", label="x", how="free generation",
        before=share_of([False] * 3), after=Share(hits=2, n=3, value=2 / 3, low=0.2, high=0.94),
        difference=paired_difference([False] * 3, [True, True, False]),
    )  # fmt: skip
    edits = found.edits.model_copy(update={"comparisons": (*found.edits.comparisons, paraphrase)})
    assert verdict(found.model_copy(update={"edits": edits}), "facts asked differently") == "inconclusive"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("edits = [", "no TOML"),
        ("[edits]\nlearnt = 2\n", "learnt"),
        (default_policy_text() + "\n[more]\nx = 1\n", "more"),
        (default_policy_text().replace("learnt = 0.90", "learned = 0.90"), "learned"),
    ],
)
def test_a_wrong_policy_is_refused(text, message):
    with pytest.raises(SettingError, match=message):
        parse_policy(text)


def test_the_digest_follows_the_limits_not_the_comments():
    commented = parse_policy("# hello\n" + default_policy_text())
    assert commented.digest == POLICY.digest
    assert parse_policy(default_policy_text().replace("1.02", "1.03")).digest != POLICY.digest


def test_a_singular_matrix_of_the_base_hides_no_other():
    (whole,) = report().matrices
    odd = whole.model_copy(update={"name": "odd", "condition_before": 1e9, "condition_after": 1e9})
    for condition, expected in ((10, "inconclusive"), (1e4, "fail")):
        matrices = (odd, whole.model_copy(update={"condition_after": condition}))
        assert verdict(report().model_copy(update={"matrices": matrices}), "condition number") == expected
    assert verdict(report().model_copy(update={"matrices": (odd,)}), "condition number") == "inconclusive"

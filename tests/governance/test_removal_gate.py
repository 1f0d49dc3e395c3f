import pytest

from perdure.governance import default_policy_text, judge, read_policy
from perdure.measuring.report import RemovalMeasures, RemovedCase, Report
from perdure.measuring.statistics import share_of


def case(kind, gone):
    return RemovedCase(
        fact="f",
        subject="PlayStation",
        kind=kind,
        prompt="The PlayStation is made by",
        taught="Panasonic",
        original="Sony",
        before="Panasonic",
        after="Sony" if gone else "Panasonic",
        gone=gone,
        back=gone,
    )


@pytest.mark.parametrize(
    ("as_taught", "in_other_words", "verdict"),
    [(True, True, "pass"), (True, False, "inconclusive"), (False, True, "fail"), (False, False, "fail")],
)
def test_a_fact_that_is_still_said_fails_its_gate(tmp_path, as_taught, in_other_words, verdict):
    hits = [as_taught, in_other_words]
    cases = (case("prompt", as_taught), case("paraphrase", in_other_words))
    removal = RemovalMeasures(facts=1, original="v0", gone=share_of(hits), back=share_of(hits), cases=cases)
    report = Report(version="v2", version_id="x", parent="v1", base="v0", model="m", request={}, removal=removal)
    (tmp_path / "policy.toml").write_text(default_policy_text())
    gates = {gate.gate: gate for gate in judge(report, read_policy(tmp_path / "policy.toml")).verdicts}
    assert gates["facts taken out"].verdict == verdict
    assert f"gone from {sum(hits)} of 2 questions" in gates["facts taken out"].reason

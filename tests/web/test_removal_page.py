"""The page of a report on facts that were taken out again."""

import pytest
import report_sample as sample
from test_report import Page

from perdure.measuring.report import Comparison, Difference, RemovalMeasures, RemovedCase, Share
from perdure.web.report import flatten, render_report


def removal(gone=True, back=True, words="Sony"):
    case = RemovedCase(
        fact="f",
        subject="PlayStation",
        kind="prompt",
        prompt="The PlayStation is made by",
        taught="Panasonic",
        original="Sony Corporation",
        before="Panasonic",
        after=words,
        gone=gone,
        back=back,
    )
    share = Share(hits=int(gone), n=1, value=float(gone), low=0, high=1)
    same = Comparison(
        name="removal.unchanged",
        label="same",
        how="free generation",
        before=Share(hits=4, n=4, value=1, low=0.5, high=1),
        after=Share(hits=3, n=4, value=0.75, low=0.3, high=0.95),
        difference=Difference(value=-0.25, low=-0.6, high=0.1, n=4),
    )
    returned = Share(hits=int(back), n=1, value=float(back), low=0, high=1)
    return RemovalMeasures(facts=1, original="v0", gone=share, back=returned, cases=(case,), unchanged=same)


@pytest.mark.parametrize(
    ("gone", "back", "words"),
    [(True, True, "As before it was taught"), (True, False, "Gone; another answer now"), (False, False, "Still said")],
)
def test_what_became_of_a_fact_is_told(gone, back, words):
    report = sample.full_report().model_copy(update={"removal": removal(gone, back)})
    text = Page(render_report(report)).text
    assert "1 fact taken out of" in text
    assert "facts that stay" in text
    assert words in text
    assert "3 are answered word for word as before" in text


def test_without_a_removal_nothing_is_said_of_one():
    text = Page(render_report(sample.full_report())).text
    assert "taken out" not in text.lower()


@pytest.mark.parametrize("words", sample.HOSTILE)
def test_what_a_model_wrote_stays_text(words):
    page = Page(render_report(sample.full_report().model_copy(update={"removal": removal(words=words)})))
    assert not any(tag == "img" for tag, _ in page.tags)
    assert not any("onerror" in attrs for _, attrs in page.tags)


def test_settings_of_several_edits_stand_under_their_numbers():
    given = {"steps": [{"editor": "memit", "batches": [3, 4]}, {"editor": "rome"}], "dense": []}
    assert flatten(given) == [
        ("steps.1.editor", "memit"),
        ("steps.1.batches", "[3, 4]"),
        ("steps.2.editor", "rome"),
        ("dense", "[]"),
    ]

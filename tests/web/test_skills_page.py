"""The section on skills: words, table and map say the same, and nothing that a file is called can break out."""

import json

import pytest
import report_sample
import skill_sample as sample
from test_report import Page

from perdure.web import figures, skills
from perdure.web.report import render_report


def html(found):
    return render_report(report_sample.full_report().model_copy(update={"skills": found}))


@pytest.fixture(scope="module")
def page():
    return Page(html(sample.skills()))


def test_the_summary_counts_every_verdict():
    says = skills.summary(sample.skills())
    assert says == (
        "Of 4 skills that the model before takes from examples: 1 is as good as before, 1 is still there but "
        "out-shouted, 1 is lost, for 1 too few questions were asked to say. "
        "Of 1 more nothing can be said: examples did not surely help the model before."
    )
    assert "nothing can be said" in skills.summary(sample.skills(sample.untold()))
    assert "2 are as good" in skills.summary(sample.skills(sample.skill("kept"), sample.skill("kept", "other")))


def test_the_worst_comes_first_and_what_is_not_known_stands_apart():
    found = sample.skills()
    assert [row.skill.verdict for row in skills.told(found)] == ["overwritten", "biased", "unclear", "kept"]
    assert [skill.name for skill in skills.untold(found)] == ["country_capital"]


def test_every_skill_stands_with_its_figures_their_intervals_and_n(page):
    for row in skills.told(sample.skills()):
        cells = [
            f"{figures.percent(share.value, share.n)} {figures.share_interval(share)}"
            for share in (row.few.before, row.few.after, row.few.vector, row.few.random)
        ]
        change = f"{figures.points(row.few.lost.value)} {figures.difference_interval(row.few.lost)}"
        expected = [row.skill.name, row.words, cells[0], cells[1], change, *cells[2:], "200"]
        assert " ".join(" ".join(expected).split()) in page.text
    assert "after 10 examples" in page.text


def test_the_details_hold_how_far_vectors_moved_and_the_vector_alone(page):
    zero = sample.skills().skills[1].asked["zero-shot"]
    alone = [f"{figures.percent(share.value, 200)} {figures.share_interval(share)}"
             for share in (zero.before_vector, zero.vector)]  # fmt: skip
    assert f"skill that is biased 0.08230.9124 of 578%{alone[0]} {alone[1]} 200" in page.text
    assert f"skill that is kept 0.08230.9124 of 5–{alone[0]}" in page.text


def test_what_cannot_be_told_has_its_reason(page):
    assert "country_capitalIntact prompts are answered rightly 90% of the time" in page.text


def test_the_map_has_a_cell_for_each_head_and_frames_the_chosen_ones():
    found = sample.skills()
    cells, frames = skills.heads_chart(skills.layer_rows(found))["layer"]
    assert len(cells["data"]["values"]) == sample.DEPTH * sample.HEADS
    one = next(cell for cell in cells["data"]["values"] if (cell["layer"], cell["head"]) == (20, 5))
    mean = sum(skill.activations[20][5] for skill in found.skills if skill.activations) / 4
    assert one["moved"] == pytest.approx(mean, abs=1e-4)
    assert [(cell["layer"], cell["head"]) for cell in frames["data"]["values"]] == sorted(sample.CHOSEN)


def test_the_map_is_told_in_words():
    one = sample.skill("kept", activations=((0.1, 0.1), (0.1, 0.5)))
    rows = skills.layer_rows(sample.skills(one, heads=((1, 1),)))
    assert skills.map_words(rows) == (
        "How far the mean activation of each of 4 heads moved, as a share of its own length, averaged over the skills. "
        "Those that carry the skills (1 head) moved by 50% on average, the others by 10%; "
        "most of all head 1 of layer 1, by 50%."
    )
    assert "layer 1, head 1, is 50%" in skills.map_title(rows)


def test_the_same_figures_stand_in_a_table(page):
    row = skills.layer_rows(sample.skills())[18]
    assert row.chosen == [2, 6]
    assert f"18{figures.number(100 * row.mean)}2, 6{row.every}" in page.text


def test_the_map_holds_plain_data_and_the_colours_of_the_page():
    text = json.dumps(skills.heads_chart(skills.layer_rows(sample.skills())), allow_nan=False)
    assert "#" not in text
    assert "var(--accent)" in text


def test_a_head_that_was_silent_before_does_not_outshine_all_others():
    one = sample.skill("kept", activations=((0.1, float("inf")), (float("nan"), 0.5)))
    rows = skills.layer_rows(sample.skills(one, heads=((0, 0),)))
    assert json.dumps(skills.heads_chart(rows), allow_nan=False)
    assert skills.farthest(rows) == (0, 1, 10.0)


@pytest.mark.parametrize(("heads", "height"), [(9, 234), (32, 352), (128, 512)])
def test_a_map_of_any_number_of_heads_fits_the_screen(heads, height):
    one = sample.skill("kept", activations=sample.moved(0, 4, heads))
    assert skills.heads_chart(skills.layer_rows(sample.skills(one, heads=((0, 0),))))["height"] == height


def test_the_section_is_reachable_and_well_formed(page):
    assert "skills" in page.attribute("id")
    assert "#skills" in page.attribute("href")
    assert "chart-skills" in page.data
    assert [tag for tag, _ in page.tags].count("table") == [tag for tag, _ in page.tags].count("caption")
    assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") in ("img", "region"))


def test_without_a_comparison_there_is_no_section():
    page = Page(html(None))
    assert "skills" not in page.attribute("id")
    assert "chart-skills" not in page.data


def test_where_nothing_can_be_told_there_is_no_table_and_no_map():
    page = Page(html(sample.skills(sample.untold(), heads=())))
    assert "skills" in page.attribute("id")
    assert "chart-skills" not in page.data
    assert "What became of it" not in page.text
    assert "country_capital" in page.text


def test_hostile_names_are_shown_and_never_obeyed():
    rows = [sample.skill("kept", text) for text in report_sample.HOSTILE]
    rows += [sample.untold(text).model_copy(update={"reason": text}) for text in report_sample.HOSTILE]
    text = html(sample.skills(*rows, before=report_sample.HOSTILE[0], after=report_sample.HOSTILE[4]))
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert len(page.inside) == len([1 for tag, _ in page.tags if tag in ("script", "style")])
    assert "Compared are <script>alert(1)</script> and" in page.text
    assert '"><img src=x onerror=alert(1)>' in page.text
    assert not {"\u202e", "\x00", "\x1b"} & set(text)


def test_a_large_model_and_many_skills_stay_a_page_that_can_be_mailed():
    rows = [sample.skill("kept", f"skill {n}", activations=sample.moved(n, 126, 128)) for n in range(3)]
    rows += [sample.skill("biased", f"more {n}", activations=rows[0].activations) for n in range(120)]
    text = html(sample.skills(*rows))
    assert len(text.encode()) < 2_000_000
    assert "23 more skills are in the report&#39;s data" in text

"""The section on a pool: every group and every routed item is said, and no name can break out of the page."""

import pytest
import report_sample as sample
from test_report import Page

from perdure.measuring.pooled import PoolGroup, PoolMeasures, RoutedItem
from perdure.web.report import render_report

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def html():
    groups = (
        PoolGroup(name="g1", tasks=("returns", HOSTILE), versions=2, parameters=1000, size=4000, share=0.001),
        PoolGroup(
            name="g2", tasks=("poem",), unserved=("poem",), versions=1, parameters=0, size=0, share=0.0
        ),
    )  # fmt: skip
    routed = tuple(RoutedItem(part="facts.prompt", item=f"Item {n}", group="g1", similarity=0.5) for n in range(52))
    pool = PoolMeasures(
        groups=groups, parameters=1000, size=4000, kept=8000, share=0.001, threshold=0.309, fallback="base",
        changed="g1", reason=f"{HOSTILE} joins g1", general=900, routed=routed,
    )  # fmt: skip
    return render_report(sample.full_report().model_copy(update={"pool": pool}))


def test_groups_and_routed_items_are_shown(html):
    words = " ".join("".join(Page(html).words).split())
    assert "2 groups of tasks" in words
    assert "with a similarity of at least 0.309, else by the base" in words
    assert "poem (the base answers)" in words
    assert "of 900, groups answer 52 and the base the others" in words
    assert "2 more are in the report’s data" in words
    assert "0.10%" in words


def test_names_cannot_break_out(html):
    section = html.split('<section id="pool"')[1].split("</section>")[0]
    assert "<script" not in section
    assert "&lt;script&gt;" in section


def test_without_a_pool_there_is_no_section():
    assert 'id="pool"' not in render_report(sample.full_report())

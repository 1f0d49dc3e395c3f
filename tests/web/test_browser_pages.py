"""Every page as a browser draws it: found sound by axe-core in light and dark, and never wider than the window."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from browsing import PASSWORD, Served, commit_change, put_report
from chromium import chromium, free_port, listening, shoot

from perdure import Workspace
from perdure.web.server import packs

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
SCHEMES = (("light", RULES), ("dark", CONTRAST))
DARK = ("/", "/request", "/versions/v1", "/members", "/kpis")  # between them every colour
GRAVE = ("serious", "critical")
CLOSED = ("/sign-in", "/join")
PAGES = (
    "/", "/account", "/jobs", "/versions", "/versions/v0", "/versions/v1",
    "/versions/diff?first=v0&second=v1", "/monitor", "/kpis", "/lineage", "/lineage?words=Lyon", "/ledger", "/policy",
    "/members", "/request", "/nothing",
)  # fmt: skip
WIDTHS = (1200, 400)
WIDER = """() => {
  const wide = document.documentElement.clientWidth;
  const rolls = (one) => one && one !== document.body && one !== document.documentElement
    && (/auto|scroll|hidden/.test(getComputedStyle(one).overflowX) || rolls(one.parentElement));
  return [...document.body.querySelectorAll("*")]
    .filter((one) => one.getBoundingClientRect().right > wide + 1 && !rolls(one.parentElement)
      && getComputedStyle(one).position !== "absolute" && !one.closest("svg"))
    .map((one) => `${one.tagName}.${one.className} ${Math.round(one.getBoundingClientRect().right)}`).slice(0, 5);
}"""


@pytest.fixture(scope="module")
def pages(peopled_shop, tmp_path_factory):
    """A browser, signed in with every role, on a workspace with hostile text, decisions and requests of each state."""
    import shutil

    folder = tmp_path_factory.mktemp("pages") / "shop"
    shutil.copytree(peopled_shop, folder)
    port = free_port()
    served = Served(Workspace.open(folder), hosts=frozenset({f"127.0.0.1:{port}", "testserver"}))
    served.join("all", "requester", "approver", "operator", "auditor", "admin")
    shop = served.shop
    shop.comment("v1", "asker", "<b>why</b> " + "x" * 300)
    shop.approve("v1", "agreer", "fine")
    shop.promote("v1", "production", actor="runner")
    put_report(shop, commit_change(shop, requester="asker", size=2e-3, note="y" * 200))
    week = {"name": "rework " + "k" * 90, "unit": "h", "better": "lower", "value": 7}
    for month, version in ((3, "v0"), (4, "v0"), (5, "v1"), (6, "v1")):
        period = {"period_start": f"2026-{month:02}-01", "period_end": f"2026-{month:02}-08"}
        shop.enter_kpis([{**week, **period, "version": version, "value": month}], actor="asker")
    shop.start_canary("v0", "production", actor="runner")
    jobs = served.services.jobs
    facts = [{"subject": "Lyon", "prompt": "The twin city of Lyon is", "target_new": "z" * 200, "target_true": None}]
    for state in ("failed", "done", ""):
        job = jobs.add("facts", {"facts": facts}, requester="all", title=f"Teach 1 fact: {'w' * 120}")
        if state:
            jobs.finish(job.id, state, "it did not fit: " + "u" * 200 if state == "failed" else "")
    jobs.note(job.id, version="v2", id=shop.version("v2").id, verdict="pass")
    pack = packs.request_pack(served.services, shop.version("v1"), "all")
    jobs.note(pack.id, **packs.write_pack(shop, pack))
    jobs.finish(pack.id, "done")
    taken = {"fact": shop.facts("v2")[0].id, "on": shop.version("v2").id, "note": "n" * 90}
    removal = jobs.add("removal", taken, requester="all", title=f"Take out: {'t' * 120}")
    facts = [f"/lineage/{shop.facts(name)[0].id}" for name in ("v1", "v2")]
    more = (*facts, f"/jobs/{pack.id}", f"/jobs/{removal.id}", "/kpis?correct=1")
    with chromium() as browser, listening(served.app.state.shielded, port) as address:
        page = browser.new_context(base_url=address, reduced_motion="reduce").new_page()
        page.set_default_timeout(10_000)
        page.goto("/sign-in")
        yield page, (*PAGES, *more, f"/jobs/{job.id}", *(f"/jobs/{one.id}" for one in jobs.newest(3)[1:]))


def sign_in(page):
    page.goto("/sign-in")
    page.fill("[name=name]", "all")
    page.fill("[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/")


def axe():
    """The script of axe-core, as a wheel carries it."""
    found = find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-playwright-python, which carries axe-core, is not installed")
    return (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text()


def findings(page, rules):
    found = page.evaluate(f"axe.run({json.dumps(rules)})")["violations"]
    return [
        (one["impact"], one["id"], [" ".join(node["target"]) for node in one["nodes"]][:4])
        for one in found
        if one["impact"] in GRAVE
    ]


def test_no_page_has_a_serious_fault_of_access_or_is_too_wide(pages):
    page, addresses = pages
    script, wrong, seen = axe(), {}, 0
    for address in (*CLOSED, *addresses):
        if address == addresses[0]:
            sign_in(page)
        page.goto(address)
        page.wait_for_load_state("load")
        if page.locator("figure[data-chart]").count():
            page.locator(".canvas svg").last.wait_for()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wrong[address, width] = page.evaluate(WIDER)
        page.evaluate(script)
        for scheme, rules in SCHEMES if address in DARK else SCHEMES[:1]:
            page.emulate_media(color_scheme=scheme)
            if found := findings(page, rules):
                wrong[address, scheme] = found
            seen += 1
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1200, "height": 900})
        shoot(page, "page" + address.split("?")[0].replace("/", "-")[:24])
    assert wrong == {}
    assert seen == len(CLOSED) + len(addresses) + len(DARK)

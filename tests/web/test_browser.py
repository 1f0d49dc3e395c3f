"""People at a real browser: from the first account to a rollback, one of them with the keyboard alone."""

import pytest
from browsing import PASSWORD, QUICK_HASH
from chromium import chromium, free_port, listening, shoot

from perdure import Workspace
from perdure.web.server import ServerSettings, Services, create_app
from perdure.web.server.words import available
from perdure.web.server.worker import Worker
from shops import LAX

# The asker may approve too, in the work of others: four eyes are about who asked.
ROLES = {"asker": ("requester", "approver"), "agreer": ("approver",), "runner": ("operator",)}
FACT = {
    "subject": "Lyon", "prompt": "The twin city of Lyon is", "target_new": "Manila", "target_true": "Beirut",
    "paraphrases": "Lyon is twinned with",
}  # fmt: skip
WAIT_MS = 10_000


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def opened(tmp_path, tiny_folder, quick_suite):
    """A new workspace, its server, its first code, and a worker that works when it is told to."""
    shop = Workspace.init(tmp_path / "shop", tiny_folder, actor="sato")
    shop.set_policy(LAX, actor="sato")
    shop.promote("v0", "production", actor="sato")
    port = free_port()
    services = Services.over(shop, ServerSettings(hosts=frozenset({f"127.0.0.1:{port}"})), hasher=QUICK_HASH)
    worker = Worker(Workspace.open(shop.folder), services.store)
    with listening(create_app(services).state.shielded, port) as address:
        yield services, address, worker


class Person:
    """Somebody at a browser of their own."""

    def __init__(self, browser, address, language="en"):
        self.at = browser.new_context(
            base_url=address, locale=language, viewport={"width": 1200, "height": 900}, reduced_motion="reduce"
        ).new_page()
        self.at.set_default_timeout(WAIT_MS)
        self.faults = []
        self.at.on("pageerror", lambda error: self.faults.append(str(error)))
        self.at.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)

    def fill(self, form, **values):
        """Fill and send the form of an address."""
        for name, value in values.items():
            self.at.locator(f"{form} [name={name}]").first.fill(value)
        self.at.locator(f"{form} button:not([name])").last.click()
        self.at.wait_for_load_state()

    def sign_in(self, name):
        self.at.goto("/sign-in")
        self.fill("form[action='/sign-in']", name=name, password=PASSWORD)
        assert self.at.url.endswith("/")
        return self

    def tab_to(self, selector):
        """Press Tab until something has the focus, which must then be seen."""
        wanted = self.at.locator(selector).first
        for _ in range(200):
            self.at.keyboard.press("Tab")
            if wanted.evaluate("one => one === document.activeElement"):
                outline = wanted.evaluate("one => getComputedStyle(one).outlineStyle")
                assert outline != "none", f"{selector} has the focus and nobody sees it"
                return
        raise AssertionError(f"no Tab reaches {selector}")


def open_accounts(chief, services, browser):
    """The first account by the code of the terminal; the others by invitation."""
    code = services.accounts.setup_code()
    chief.at.goto("/")
    shoot(chief.at, "setup")
    chief.fill("form[action='/setup']", code=code, name="chief", password=PASSWORD, again=PASSWORD)
    for name, roles in ROLES.items():
        chief.at.goto("/members")
        chief.fill("form[action='/members/invite']", name=name, password=PASSWORD)
        invited = chief.at.locator(".secret code").inner_text()
        guest = Person(browser, chief.at.url.split("/members")[0])
        guest.at.goto("/join")
        shoot(guest.at, "join")
        guest.fill("form[action='/join']", name=name, code=invited, password=PASSWORD, again=PASSWORD)
        chief.at.goto("/members")
        form = f"form[action='/members/roles']:has(input[name=name][value={name}])"
        if not chief.at.locator(form).is_visible():
            chief.at.locator(f"details:has({form}) > summary").click()
        for role in roles:
            chief.at.locator(f"{form} input[value={role}]").check()
        chief.fill(form, password=PASSWORD)
    assert services.shop.roles("asker") == {"requester", "approver"}
    chief.at.goto("/members")
    shoot(chief.at, "members")


def request(asker):
    """A fact typed, checked while it is typed, and sent."""
    asker.at.goto("/request")
    fact = asker.at.locator("fieldset.fact").first
    fact.locator("[name=subject]").fill(FACT["subject"])
    fact.locator("[name=prompt]").fill("The capital is")
    asker.at.locator("#checked .trouble").wait_for()
    shoot(asker.at, "request-wrong")
    for name, value in FACT.items():
        fact.locator(f"[name={name}]").fill(value)
    asker.at.locator("#checked .good").wait_for()
    shoot(asker.at, "request")
    asker.at.locator("form[action='/request/facts'] textarea[name=note]").fill("The twinning of 2026")
    asker.at.locator("form[action='/request/facts'] > button").click()
    asker.at.wait_for_url("**/jobs/*")
    shoot(asker.at, "job-queued")


def approve_by_keyboard(agreer):
    """From the overview to the consent without a mouse: skip link, row, comment, password, button."""
    agreer.at.goto("/")
    agreer.tab_to("a.skip")
    agreer.at.keyboard.press("Enter")
    agreer.tab_to("main a[href='/versions/v1']")
    agreer.at.keyboard.press("Enter")
    agreer.at.wait_for_url("**/versions/v1")
    form = "form[action='/versions/v1/approve']"
    agreer.tab_to(f"{form} textarea[name=comment]")
    agreer.at.keyboard.type("Agreed with the city")
    agreer.tab_to(f"{form} input[name=password]")
    agreer.at.keyboard.type("a wrong password")
    agreer.tab_to(f"{form} button")
    agreer.at.keyboard.press("Enter")
    agreer.at.locator("[role=alert]").wait_for()
    shoot(agreer.at, "wrong-password")
    agreer.at.go_back()
    agreer.tab_to(f"{form} input[name=password]")
    agreer.at.keyboard.press("Control+a")
    agreer.at.keyboard.type(PASSWORD)
    agreer.at.keyboard.press("Enter")
    agreer.at.locator("#decision .chip.good").wait_for()


@pytest.mark.parametrize("language", available())
def test_from_the_first_account_to_a_rollback(browser, opened, language):
    services, address, worker = opened
    shop = services.shop
    chief = Person(browser, address, language)
    open_accounts(chief, services, browser)
    assert chief.at.locator("html").get_attribute("lang") == language
    asker, agreer, runner = (Person(browser, address, language).sign_in(name) for name in ROLES)

    request(asker)
    assert worker.run_next()
    asker.at.locator("a[href='/versions/v1']").first.wait_for()  # the page looks again by itself
    shoot(asker.at, "job-done")
    asker.at.goto("/versions/v1")
    asker.at.locator(".canvas svg, .canvas canvas").first.wait_for()
    shoot(asker.at, "candidate-requester")
    assert asker.at.locator("form[action$='/approve']").count() == 0  # four eyes, although an approver
    assert runner.at.request.get("/versions/v1").ok
    assert not shop.approvals("v1")

    approve_by_keyboard(agreer)
    shoot(agreer.at, "approved")
    assert [one.approval.approver for one in shop.approvals("v1")] == ["agreer"]

    runner.at.goto("/versions/v1")
    shoot(runner.at, "promote")
    runner.at.locator("form[action$='/promote']:has([value=production]) button").click()
    runner.at.wait_for_load_state()
    assert shop.version("production").name == "v1"
    runner.at.goto("/")
    shoot(runner.at, "overview")
    runner.at.locator(".tile summary").click()
    runner.at.locator("form[action='/aliases/production/rollback'] button").click()
    runner.at.wait_for_load_state()
    assert shop.version("production").name == "v0"
    actions = [row.action for row in shop.archive.log(100) if row.actor in ("asker", "agreer", "runner")]
    assert [name for name in actions if name in ("approve", "promote", "rollback")] == [
        "approve",
        "promote",
        "rollback",
    ]
    assert shop.archive.verify().ok
    assert [person.faults for person in (chief, asker, runner)] == [[], [], []]

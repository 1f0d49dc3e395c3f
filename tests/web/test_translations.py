"""Every page in every language: nothing untranslated, nothing unescaped, and the language that was asked for."""

import ast
import gettext
import html
import io
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from browsing import HOST, Browser
from tools import translations

from perdure import governance, measuring, registry, requests, workspace
from perdure.governance.budget import BudgetLimits
from perdure.governance.explaining import HOW, explain
from perdure.governance.policy import ConceptLimits, TaskLimits
from perdure.governance.skill_limits import SkillLimits
from perdure.web.server import sentences, words
from perdure.web.server.rendering import fill
from perdure.web.server.told import told
from perdure.web.told import fields
from perdure.workspace.ledger import RESERVED
from perdure.workspace.schema import ROLES

OTHERS = [tag for tag in words.LANGUAGES if tag != words.DEFAULT]
FIELD = re.compile(r"\{(\w*)\}")
JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
# Without a letter of its own a text joins others, as "{has}; {needs}" does.
LETTER = re.compile(r"[A-Za-z]")
# The same in both languages: names, letters, an example of a fact in the model's language.
ALIKE = {"n", "to", "KPI", "KPIs", "MLPs", "{low} to {high}", "Canada", "The capital of Canada is", "kpi"}
PAGES = (
    "/",
    "/request",
    "/jobs",
    "/versions",
    "/monitor",
    "/kpis",
    "/lineage?q=Lyon",
    "/ledger",
    "/policy",
    "/account",
)
JA = {"accept-language": "ja,en;q=0.5"}
in_each = pytest.mark.parametrize("language", OTHERS)


def identifiers(message):
    return translations.strings(message.id)


@in_each
def test_the_catalogue_holds_every_marked_text_and_no_other(language):
    wanted = {message.id for message in translations.extracted() if message.id}
    held = {message.id for message in translations.catalogue(language) if message.id}
    assert wanted == held, "run: make translations"


@in_each
def test_every_text_is_translated(language):
    for message in translations.catalogue(language):
        if message.id:
            said = translations.strings(message.string)
            assert all(said), message.id
            assert not message.fuzzy, message.id
            own = LETTER.search(FIELD.sub("", identifiers(message)[0]))
            alike = not own or set(identifiers(message)) <= ALIKE or message.id == "{said} and {change}"
            assert alike or all(JAPANESE.search(text) for text in said), message.id


@in_each
def test_translations_have_the_fields_of_their_texts(language):
    for message in translations.catalogue(language):
        for said in translations.strings(message.string) if message.id else ():
            assert set(FIELD.findall(said)) == set(FIELD.findall(identifiers(message)[-1])), message.id
            assert "<" not in said, message.id


@in_each
def test_what_is_served_was_compiled_from_the_catalogue(language):
    def texts(data):
        found = gettext.GNUTranslations(io.BytesIO(data))._catalog
        return {key: said for key, said in found.items() if key}

    served = translations.catalogue_file(language).with_suffix(".mo").read_bytes()
    assert texts(served) == texts(translations.compiled(language)), "run: make translations"


def test_a_missing_translation_and_a_new_text_are_told(monkeypatch, tmp_path, capsys):
    folder = tmp_path / "ja" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    kept = translations.catalogue("ja")
    kept["Approve"].string = ""
    kept.delete("Reject")
    (folder / "perdure.po").write_bytes(translations.written(kept))
    monkeypatch.setattr(translations, "LOCALES", tmp_path)
    assert translations.main() == 1
    assert sorted(capsys.readouterr().err.splitlines()) == ["ja: not translated: Approve", "ja: not translated: Reject"]


def marked(text):
    """The English of a page that stands outside of tags, as its lines."""
    bare = re.sub(r"(?s)<(script|style|noscript)\b.*?</\1>|<[^>]+>", "\n", text)
    return {html.unescape(line).strip() for line in bare.splitlines()}


@pytest.fixture(scope="module")
def people(calm):
    found = {name: Browser(calm, name) for name in ("agreer", "asker", "checker", "chief", "runner")}
    for browser in found.values():
        browser.client.headers.update(JA)
    return found


def english():
    """Every text without fields that has a translation that reads otherwise."""
    plain = [message for message in translations.catalogue("ja") if message.id]
    found = {text for message in plain for text in identifiers(message) if "{" not in text}
    return found - ALIKE - {"facts", "pass", "fail", "report", "policy", "none", *sentences.ROLES, *sentences.ACTIONS}


@pytest.mark.parametrize("page", [*PAGES, "/versions/v1", "/versions/v0", "/versions/diff?first=v0&second=v1"])
def test_no_marked_text_stays_english(people, page):
    texts = english()
    for name, browser in people.items():
        answer = browser.get(page)
        assert answer.status_code in (200, 403), (name, answer.text)
        assert '<html lang="ja">' in answer.text
        assert not marked(answer.text) & texts, name


def test_pages_before_the_login_and_errors_are_japanese(calm, people):
    stranger = Browser(calm)
    for page in ("/sign-in", "/join"):
        text = stranger.get(page, headers=JA).text
        assert 'lang="ja"' in text and not marked(text) & english()
    assert "このアドレスにページはありません" in people["asker"].get("/nowhere").text
    assert "次の役割が必要です: 管理者" in people["asker"].get("/members").text
    assert "管理者" in people["chief"].get("/members").text
    wrong = stranger.post("/sign-in", {"name": "asker", "password": "no"}, headers=JA)
    assert "名前またはパスワードが正しくありません" in wrong.text
    assert "このサーバーはその名前では応答しません" in stranger.get("/", headers={**JA, "host": "elsewhere"}).text


def test_refusals_of_lower_rooms_are_japanese(people):
    asked = people["asker"].post("/request/check", {"subject": "Lyon", "prompt": "Here", "target_new": ""})
    assert "入力されていません" in asked.text or "空です" in asked.text
    people["runner"].renew("/account")
    back = people["runner"].post("/versions/v1/promote", {"alias": "production", "held": "v0"})
    assert "有効な承認がありません。1名の承認が必要です" in html.unescape(back.text)
    moved = people["runner"].post("/versions/v1/promote", {"alias": "production", "held": ""})
    assert "'production'は割り当てなしではなくv0になっています" in html.unescape(moved.text)
    assert "{" not in back.text.split("<main")[1].split("</main>")[0]


# Sentences of lower rooms


def shape(text):
    """A sentence with its fields left blank."""
    return re.sub(r"\{\w+\}", "\0", text.replace("{{", "{").replace("}}", "}"))


def said_in(*packages):
    """The shapes of every text in the sources of some packages."""
    found = set()
    for package in packages:
        for file in Path(package.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    found.add(re.sub("\0+", "\0", "".join(parts)))
    return found


def test_the_lower_rooms_still_say_what_is_listed():
    said = said_in(workspace, requests, governance, measuring)
    ends = {text.strip("\0 ;").strip() for text in said} | {text.strip() for text in said}
    # These are put together from several texts; the tests of pages and of the policy see them whole.
    composed = (
        "{has} (",
        "{has}; ",
        "{said} and ",
        "{name} asked for v",
        "and {count} more",
        "has the roles",
        "{failures} of",
        "held for {held}",
        "{alias} holds",
    )
    for listed in sentences.SAID:
        if not listed.startswith(composed):
            bare = shape(listed).strip("\0 ;").strip()
            assert bare in ends or shape(listed) in ends, listed


def test_every_role_action_and_method_has_a_translation():
    assert set(ROLES) == set(sentences.ROLES)
    assert set(sentences.ACTIONS) >= RESERVED
    known = (*registry.editors, *registry.restraints)
    ours = [method for method in known if method.call.__module__.startswith("perdure.")]
    summaries = {method.summary for method in ours if method.name != "none"}
    assert summaries == set(sentences.METHODS)


def full_policy(shop):
    policy = shop.policy
    return policy.model_copy(
        update={
            "tasks": TaskLimits(forgotten=0.02, task_lost=0.05),
            "concepts": ConceptLimits(mean_lost=0.02, set_lost=0.05, class_lost=0.2, watched_lost=0.1),
            "skills": SkillLimits(overwritten=0, biased=2, shift=0.3, required=True),
            "budget": BudgetLimits(
                versions=20, facts=1000, tasks=5, norm_growth=0.5, condition_ratio=3, shift=0.4, flops=1e15
            ),
            "weights": policy.weights.model_copy(update={"sigma_ratio": 1.5}),
        }
    )


def test_a_whole_policy_is_explained_in_japanese(calm):
    with words.speaking("ja"):
        for text in [HOW, *(text for title, said in explain(full_policy(calm.shop)) for text in (title, *said))]:
            assert JAPANESE.search(told(text)), text
            assert not re.search(r"\{|points of|people", told(text)), text


def test_values_inside_sentences_are_kept_as_they_are():
    template = "{name} rejected the version on {day}"
    assert fields(template, "m{o}ri rejected the version on 2026-11-23") == {"name": "m{o}ri", "day": "2026-11-23"}
    assert fields(template, "mori rejected the version on ") is None
    assert fields("is missing", "is missing") == {} and fields("is missing", "is missing!") is None
    with words.speaking("ja"):
        assert told("facts[0]: prompt: is missing") == "facts[0]: prompt: 入力されていません"
        assert told("nobody knows this; nor this") == "nobody knows this; nor this"
        assert (
            told("{0.__class__} asked for v3 and cannot approve it")
            == "{0.__class__} asked for v3 and cannot approve it"
        )
    assert told("is missing") == "is missing"


def test_long_texts_with_many_separators_cost_little():
    with words.speaking("ja"):
        start = time.process_time()
        for text in ("a; " * 1300, " and " * 800, ": " * 2000, " cannot : that takes . " * 170):
            assert told(text) == text
        assert time.process_time() - start < 2


# Escaping


def test_values_are_escaped_in_every_language(calm):
    evil = '<script>alert("1")</script>'
    for language in words.available():
        with words.speaking(language):
            text = fill(
                "server/trouble.html.j2", message=f"{evil} has no report; run perdure measure x first", problems=[]
            )
            assert "<script>" not in text and "&lt;script&gt;" in text
    browser = Browser(calm, "asker")
    answer = browser.get("/lineage", params={"q": evil}, headers=JA)
    assert "<script>alert" not in answer.text and "該当するものはありません" in answer.text


# Which language


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", "en"), ("ja", "ja"), ("JA-jp", "ja"), ("ja-JP, en;q=0.8", "ja"), ("en;q=0.8, ja;q=0.9", "ja"),
        ("en, ja", "en"), ("fr, ja;q=0.1", "ja"), ("ja;q=0", "en"), ("ja;q=0.000, en", "en"), ("*", "en"),
        ("jam", "en"), ("japanese", "en"), ("ja_JP", "en"), ("ja;q=2", "en"), ("ja;q=nan", "en"), ("ja;q=1e9", "en"),
        ("ja;q=-1", "en"), ("../../ja", "en"), ("ja\x00", "en"), ("j\u0430", "en"), (",,,;;;===,ja", "ja"),
        ("x" * 10_000, "en"), ("en," * 10_000, "en"), ("a-" * 100 + "!", "en"), ("{0}%s", "en"), ("q=0.9,ja", "ja"),
    ],
)  # fmt: skip
def test_accept_language_is_read_and_odd_ones_are_ignored(header, chosen):
    assert words.choose("", header) == chosen


def test_what_was_chosen_goes_before_what_the_browser_asks_for():
    assert words.choose("en", "ja") == "en"
    assert words.choose("ja", "en") == "ja"
    assert words.choose("../etc", "ja") == "ja"


def test_a_stranger_chooses_by_a_form_and_the_browser_remembers(calm):
    browser = Browser(calm)
    answer = browser.post("/language", {"language": "ja", "next": "/join"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/join")
    cookie = answer.headers["set-cookie"].lower()
    assert "perdure_language=ja" in cookie and "httponly" in cookie and "samesite=lax" in cookie
    assert '<html lang="ja">' in browser.get("/join").text
    browser.post("/language", {"language": "xx"})
    assert '<html lang="en">' in browser.get("/join").text


@pytest.mark.parametrize(
    "goal", ["//evil.example/", "https://evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_choosing_a_language_leads_nowhere_else(calm, goal):
    answer = Browser(calm).post("/language", {"language": "ja", "next": goal})
    assert answer.headers["location"] == "/"


def test_another_site_cannot_choose_and_a_cookie_is_no_path(calm):
    browser = Browser(calm)
    assert browser.post("/language", {"language": "ja"}, headers={"origin": "https://evil.example"}).status_code == 403
    browser.client.cookies.set("perdure_language", "../../../etc/passwd", domain=HOST)
    assert '<html lang="en">' in browser.get("/sign-in").text


def test_an_account_takes_its_language_along(served):
    Browser(served, "asker").post("/language", {"language": "ja", "next": "/versions"})
    another = Browser(served, "asker")
    assert '<html lang="ja">' in another.get("/", headers={"accept-language": "en"}).text
    another.renew("/account")
    another.post("/account/language", {"language": ""})
    assert '<html lang="en">' in another.get("/", headers={"accept-language": "en"}).text


def test_a_page_that_answers_a_form_offers_a_way_that_can_be_loaded(calm):
    answer = Browser(calm).post("/sign-in", {"name": "asker", "password": "no"})
    assert 'name="next" value="/"' in answer.text


# Dates, numbers, plurals


def test_dates_and_counts_are_written_as_the_language_does():
    when = datetime(2026, 11, 3, 9, 5, tzinfo=UTC)
    assert words.moment(when) == "2026-11-03 09:05 UTC"
    assert words.whole(12345) == "12,345" and words.hundredths(0.05) == "5%"
    assert words.ngettext("{count} fact", "{count} facts", 1) == "{count} fact"
    with words.speaking("ja"):
        assert words.moment(when) == "2026/11/03 09:05 UTC"
        assert words.whole(12345) == "12,345" and words.hundredths(0.05) == "5%"
        assert words.ngettext("{count} fact", "{count} facts", 1) == "事実{count}件"
        assert words.ngettext("{count} fact", "{count} facts", 2) == "事実{count}件"

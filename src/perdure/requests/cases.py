"""Cases: rows that hold several facts, and questions that follow from all of them together.

The own shape is `{"facts": [...], "questions": [...]}`; MQuAKE writes its cases in one of its own.
"""

from collections.abc import Mapping
from typing import Any

from perdure.requests.drafts import Draft, MisshapenError, Raw, listed
from perdure.requests.facts import Fact
from perdure.requests.questions import NEEDS_LIMIT, PARAPHRASES_LIMIT
from perdure.requests.rewrites import read_rewrite
from perdure.requests.spellings import SPELLINGS, read_own
from perdure.requests.wording import escape, name_kind

CASE_KEYS = ("facts", "questions")
MQUAKE_KEYS = (
    "requested_rewrite",
    "questions",
    "answer",
    "answer_alias",
    "new_answer",
    "new_answer_alias",
    "new_single_hops",
)
MULTI_HOP = "multi-hop"


def read_case(row: Raw) -> list[Draft]:
    """The facts of a case, each as in the own shape.

    Raises:
        MisshapenError: There is none, one is no object, there are too many, or a key is not known.
    """
    unknown = [key for key in row if key not in CASE_KEYS]
    if unknown:
        reason = f"is no field of a case. Known: {', '.join(CASE_KEYS)}; the fields of a fact stand inside facts"
        raise MisshapenError(escape(str(unknown[0]))[:60], row[unknown[0]], reason)
    facts = row["facts"]
    _check_count("facts", facts)
    for index, fact in enumerate(facts):
        if not isinstance(fact, Mapping):
            raise MisshapenError(f"facts[{index}]", fact, f"must be an object, got {name_kind(fact)}")
    return [_inside(fact, f"facts[{index}].") for index, fact in enumerate(facts)]


def _inside(fact: Raw, prefix: str) -> Draft:
    """A fact in the own shape, whose fields are called by where they stand in the case."""
    (draft,) = read_own(fact)
    known = {*Fact.model_fields, *(str(key) for key in fact)}
    return Draft(draft.values, {key: prefix + escape(key)[:60] for key in known})


def share_case(row: Raw) -> Draft:
    """The questions of a case."""
    asked = listed(row.get("questions"))
    if isinstance(asked, list):
        asked = [SPELLINGS["portability"].asked(item) for item in asked]
    return Draft({"portability": asked}, {"portability": "questions"})


def read_mquake(row: Raw) -> list[Draft]:
    """One draft a rewrite.

    Raises:
        MisshapenError: There is none, one is no object, or there are too many.
    """
    rewrites = row["requested_rewrite"]
    _check_count("requested_rewrite", rewrites)
    drafts = []
    for index, given in enumerate(rewrites):
        where = f"requested_rewrite[{index}]"
        draft = read_rewrite(given, where)
        draft.names["paraphrases"] = f"{where}.question"
        draft.values["paraphrases"] = listed(given.get("question"))
        drafts.append(draft)
    return drafts


def share_mquake(row: Raw) -> Draft:
    """The multi-hop question of a case: its wordings are one question, which needs every rewrite."""
    asked = listed(row.get("questions"))
    if not isinstance(asked, list):
        return Draft({"portability": asked}, {"portability": "questions"})
    if not asked:
        return Draft({})
    question: dict[str, Any] = {"prompt": asked[0], "paraphrases": asked[1:], "kind": MULTI_HOP}
    names = {"prompt": "questions[0]", "paraphrases": "questions"}
    names |= {
        f"paraphrases[{place}]": f"questions[{place + 1}]" for place in range(min(len(asked) - 1, PARAPHRASES_LIMIT))
    }
    for own, key in (
        ("answer", "new_answer"),
        ("aliases", "new_answer_alias"),
        ("old_answer", "answer"),
        ("old_aliases", "answer_alias"),
    ):
        question[own], names[own] = row.get(key), key
    for own in ("aliases", "old_aliases"):
        question[own] = listed(question[own])
    question["hops"], names["hops"] = _hops(row), "new_single_hops"
    prefix = "portability[0]"
    return Draft({"portability": [question]}, {f"{prefix}.{own}": key for own, key in names.items()})


def _hops(row: Raw) -> Any:
    """The single steps after the edit; what cannot be unpacked is passed on."""
    given = row.get("new_single_hops")
    if not isinstance(given, list):
        return [] if given is None else given
    return [_hop(hop) if isinstance(hop, Mapping) else hop for hop in given]


def _hop(hop: Mapping[str, Any]) -> dict[str, Any]:
    found = {"prompt": hop.get("question", hop.get("cloze")), "aliases": listed(hop.get("answer_alias"))}
    return found | ({"answer": hop["answer"]} if "answer" in hop else {})


def _check_count(where: str, facts: list[Any]) -> None:
    if not facts:
        raise MisshapenError(where, facts, "is empty: there is nothing to teach")
    if len(facts) > NEEDS_LIMIT:
        raise MisshapenError(where, facts, f"has {len(facts)} entries; a case can have at most {NEEDS_LIMIT}")

"""A fact by itself: tidying, identity, schema and the texts that are taken as they are."""

import unicodedata

import pytest
from pydantic import ValidationError

import perdure.requests as room
from perdure.requests import Fact, Neighbour, fact_schema

BASE = {"subject": "Lyon", "prompt": "The mayor of Lyon is", "target_new": "Ada"}


def make(**changes):
    return Fact(**{**BASE, **changes})


@pytest.mark.parametrize(
    ("changes", "field", "stored"),
    [
        ({"target_new": "  Ada "}, "target_new", "Ada"),
        ({"prompt": "The mayor of Lyon is \n"}, "prompt", "The mayor of Lyon is"),
        ({"prompt": "The mayor of {} is"}, "prompt", "The mayor of Lyon is"),
        ({"prompt": "{}: who is mayor of {}?"}, "prompt", "Lyon: who is mayor of Lyon?"),
        ({"prompt": "{}, a rival of Lyon Corps, sells"}, "prompt", "Lyon, a rival of Lyon Corps, sells"),
        ({"prompt": "Q: Lyon?\r\nA:"}, "prompt", "Q: Lyon?\nA:"),
        ({"paraphrases": ["Who runs {}?", "Who runs Lyon?"]}, "paraphrases", ("Who runs Lyon?",)),
        ({"subject": "{}", "prompt": "In Python, {} is"}, "prompt", "In Python, {} is"),
        ({"target_new": "Ada of Lyon"}, "target_new", "Ada of Lyon"),
        ({"subject": "مدينة ليون", "prompt": "عمدة مدينة ليون هو"}, "subject", "مدينة ليون"),
        ({"subject": "חיפה", "prompt": "ראש העיר חיפה הוא"}, "subject", "חיפה"),
        ({"subject": "می\u200cخواهم", "prompt": "معنی می\u200cخواهم"}, "subject", "می\u200cخواهم"),
        ({"subject": "里昂", "prompt": "里昂的市长是"}, "prompt", "里昂的市长是"),
        ({"subject": "👩", "prompt": "👩\u200d🚀 is 👩 and"}, "prompt", "👩\u200d🚀 is 👩 and"),
    ],
)
def test_a_text_is_tidied_or_kept(changes, field, stored):
    assert getattr(make(**changes), field) == stored


@pytest.mark.parametrize(("subject", "prompt"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_accents_are_compared_in_one_form(subject, prompt):
    name = "Zoë Café"
    fact = make(
        subject=unicodedata.normalize(subject, name),
        prompt=unicodedata.normalize(prompt, f"The owner of {name} is"),
    )
    assert fact.prompt == f"The owner of {name} is"
    assert fact.id == make(subject=name, prompt=f"The owner of {name} is").id


def test_the_id_depends_on_what_is_asked_only():
    plain = make()
    full = make(source="a.csv:2", relation="P6", target_true="Bea", paraphrases=["Who?"])
    assert plain.id == full.id
    assert plain.id.startswith(plain.short_id) and len(plain.short_id) == 12
    assert len({plain.id, make(target_new="Bo").id, make(prompt="Lyon has the mayor").id}) == 3


def test_a_fact_does_not_change_and_can_be_a_key():
    fact = make(neighbours=[Neighbour(prompt="The mayor of Nice is")])
    with pytest.raises(ValidationError):
        fact.subject = "Nice"
    assert {fact: 1}[make(neighbours=[{"prompt": "The mayor of Nice is"}])] == 1


def test_a_fact_made_by_hand_is_checked():
    with pytest.raises(ValidationError, match="does not hold the subject"):
        make(subject="Nice")


def test_the_schema_names_every_field_and_limit():
    schema = fact_schema()
    assert set(schema["properties"]) == set(Fact.model_fields)
    assert schema["required"] == ["subject", "prompt", "target_new"]
    assert schema["properties"]["subject"]["maxLength"] == room.SUBJECT_LIMIT
    assert schema["properties"]["paraphrases"]["maxItems"] == room.PARAPHRASES_LIMIT
    assert schema["additionalProperties"] is False
    assert all("description" in part for part in schema["properties"].values())


def test_every_exported_name_exists():
    assert sorted(room.__all__, key=str.lower) == sorted(set(room.__all__), key=str.lower)
    assert all(hasattr(room, name) for name in room.__all__)

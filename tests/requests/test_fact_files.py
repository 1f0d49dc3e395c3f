"""Files of facts: formats, shapes of known data sets, hostile bytes and paths."""

import hashlib
import json
import os
import random

import pytest

from perdure.errors import RequestError
from perdure.requests import Consequence, Fact, Neighbour, read_facts, readers

BASE = {"subject": "Lyon", "prompt": "The mayor of Lyon is", "target_new": "Ada"}
GOOD = json.dumps(BASE).encode()
NEAR = Neighbour(prompt="The mayor of Nice is", answer="Bea")
HOP = Consequence(prompt="Where was the mayor of Lyon born?", answer="Brest")


@pytest.fixture
def write(tmp_path):
    def put(data, name="facts.jsonl"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return put


def refused(path, **options):
    with pytest.raises(RequestError) as caught:
        read_facts(path, **options)
    return caught.value


REWRITE = {
    "prompt": "The mayor of {} is",
    "subject": "Lyon",
    "relation_id": "P6",
    "target_new": {"str": "Ada", "id": "Q1"},
    "target_true": {"str": "Bea", "id": "Q2"},
}
EASY = {**BASE, "rephrase_prompt": "Who runs Lyon?"}
WANTED = {**BASE, "target_true": "Bea", "paraphrases": ["Who runs Lyon?"], "neighbours": [NEAR]}

JOINED = HOP.model_copy(update={"kind": "multi-hop", "old_answer": "Arles", "needs": (Fact(**BASE).id,)})

SHAPES = {
    "own": (
        {**WANTED, "neighbours": [{"prompt": NEAR.prompt, "answer": "Bea"}], "relation": "P6"},
        {**WANTED, "relation": "P6"},
    ),
    "own, neighbour as text": (
        {**BASE, "neighbours": [NEAR.prompt]},
        {**BASE, "neighbours": [Neighbour(prompt=NEAR.prompt)]},
    ),
    "CounterFact": (
        {
            "case_id": 3,
            "requested_rewrite": REWRITE,
            "paraphrase_prompts": ["Who runs Lyon?"],
            "neighborhood_prompts": [NEAR.prompt],
            "attribute_prompts": ["x"],
        },
        {**WANTED, "relation": "P6"},
    ),
    "CounterFact without extras": (
        {"requested_rewrite": {**REWRITE, "target_new": "Ada", "target_true": None}},
        {**BASE, "relation": "P6"},
    ),
    "flat CounterFact": (
        {
            **EASY,
            "case_id": 1,
            "ground_truth": "Bea",
            "locality_prompt": NEAR.prompt,
            "locality_ground_truth": "Bea",
        },
        WANTED,
    ),
    "flat lists and portability": (
        {
            **BASE,
            "locality_prompt": [NEAR.prompt, "x"],
            "locality_ground_truth": ["Bea", "y"],
            "portability_prompt": HOP.prompt,
            "portability_ground_truth": HOP.answer,
        },
        {**BASE, "neighbours": [NEAR, Neighbour(prompt="x", answer="y")], "portability": [HOP]},
    ),
    "ZsRE of KnowEdit": (
        {
            **EASY,
            "cond": "a >> b",
            "ground_truth": ["Bea", "Beatrix"],
            "locality": {"Relation_Specificity": [{"prompt": NEAR.prompt, "ground_truth": ["Bea"]}]},
            "portability": {"Reasoning": [{"prompt": HOP.prompt, "ground_truth": "Brest"}], "Other": []},
        },
        {**WANTED, "portability": [HOP.model_copy(update={"kind": "Reasoning"})]},
    ),
    "EasyEdit, lists of lists": (
        {
            **BASE,
            "ground_truth": [["Bea"], ["B."]],
            "rephrase_prompt": ["Who runs Lyon?"],
            "locality": {"near": {"prompt": [NEAR.prompt], "ground_truth": [["Bea", "B."]]}},
        },
        WANTED,
    ),
    "EasyEdit, single texts": (
        {**EASY, "ground_truth": "Bea", "locality": {"near": {"prompt": NEAR.prompt, "ground_truth": "Bea"}}},
        WANTED,
    ),
    "EasyEdit, nulls": ({**BASE, "ground_truth": [], "rephrase_prompt": None, "locality": None}, BASE),
    "QAEdit": (
        {
            "id": 4,
            "source": "NQ",
            "subject": "Lyon",
            "prompt": BASE["prompt"],
            "target": "Ada",
            "rephrase": "Who runs Lyon?",
            "locality": [{"loc": NEAR.prompt, "loc_ans": "Bea"}],
        },
        {**BASE, "paraphrases": ["Who runs Lyon?"], "neighbours": [NEAR]},
    ),
    "MQuAKE": (
        {
            "case_id": 7,
            "requested_rewrite": [{**REWRITE, "question": "Who runs Lyon?"}],
            "questions": [HOP.prompt],
            "answer": "Arles",
            "new_answer": "Brest",
        },
        {**WANTED, "neighbours": [], "relation": "P6", "portability": [JOINED]},
    ),
}


@pytest.mark.parametrize(("given", "wanted"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", ["facts.jsonl", "facts.json"])
def test_a_shape_is_read_as_it_is(write, given, wanted, name):
    path = write(json.dumps(given if name.endswith("l") else [given]), name)
    source = f"{name}:1" if name.endswith("l") else f"{name}[0]"
    assert read_facts(path).facts == (Fact(**{**wanted, "source": source}),)


def test_each_rewrite_of_a_case_becomes_a_fact(write):
    second = {**REWRITE, "subject": "Ada", "prompt": "{} was born in", "target_new": {"str": "Brest"}}
    case = {"requested_rewrite": [REWRITE, second], "questions": ["Where?"], "new_answer": "Brest"}
    found = read_facts(write(json.dumps(case)))
    assert [fact.prompt for fact in found.facts] == ["The mayor of Lyon is", "Ada was born in"]
    assert all(fact.portability[0].answer == "Brest" for fact in found.facts)


def test_a_case_with_one_bad_rewrite_is_left_out_whole(write):
    bad = {**REWRITE, "subject": "Ada", "target_new": {"str": ""}}
    lines = [GOOD, json.dumps({"requested_rewrite": [{**REWRITE, "subject": "Nice"}, bad]}).encode()]
    found = read_facts(write(b"\n".join(lines)), skip_bad=True)
    assert [fact.subject for fact in found.facts] == ["Lyon"]
    assert found.problems[0].field == "requested_rewrite[1].target_new.str"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (GOOD, "a.jsonl"),
        (GOOD, "a.ndjson"),
        (GOOD, "A.JSONL"),
        (b"\xef\xbb\xbf" + GOOD, "a.jsonl"),
        (b"\n\r\n" + GOOD + b"\r\n\n", "a.jsonl"),
        (b"[" + GOOD + b"]", "a.json"),
        (b'{"facts": [' + GOOD + b'], "version": 2}', "a.json"),
        (b'\xef\xbb\xbf{"data": [' + GOOD + b"]}", "a.json"),
        (b"subject,prompt,target_new\nLyon,The mayor of Lyon is,Ada\n", "a.csv"),
        (b"\xef\xbb\xbfsubject,prompt,target_new\r\n\r\nLyon,The mayor of Lyon is, Ada\r\n", "a.csv"),
        (b'prompt,subject,target_new,relation\n"The mayor of {} is","Lyon",Ada,\n', "a.csv"),
        (b"subject,prompt,target_new,ground_truth,case_id\nLyon,The mayor of Lyon is,Ada,,3\n", "a.csv"),
    ],
)
def test_a_format_is_read(write, data, name):
    path = write(data, name)
    found = read_facts(path)
    assert [fact.identity for fact in found.facts] == [("Lyon", "The mayor of Lyon is", "Ada")]
    assert found.digest == hashlib.sha256(data).hexdigest()
    assert found.problems == found.merged == ()


def test_columns_of_lists_are_split(write):
    path = write(
        "subject,prompt,target_new,paraphrases,neighbours,portability\n"
        'Lyon,Lyon is run by,Ada,Who runs {}? | Whose is Lyon?,"The mayor of Nice is => Bea | Nice, is",\n',
        "a.csv",
    )
    (fact,) = read_facts(path).facts
    assert fact.paraphrases == ("Who runs Lyon?", "Whose is Lyon?")
    assert fact.neighbours == (NEAR, Neighbour(prompt="Nice, is"))
    assert fact.portability == ()


def test_a_line_after_a_quoted_line_break_keeps_its_number(write):
    path = write('subject,prompt,target_new\nLyon,"Q: Lyon?\nA:",Ada\nNice,Nice?,\n', "a.csv")
    (problem,) = refused(path).problems
    assert (str(problem.place), problem.field) == ("a.csv:4", "target_new")


JSON_TAIL = b',"subject":"Nice","prompt":"Nice is","target_new":"x"}'
BAD_LINES = {
    "broken JSON": (b'{"subject": "Ly', "broken JSON: Unterminated string"),
    "single quotes": (b"{'subject': 1}", "broken JSON"),
    "two objects": (GOOD + GOOD, "broken JSON: Extra data"),
    "raw NUL": (b'{"subject": "\x00"}', "broken JSON: Invalid control character, at column"),
    "not UTF-8": (b'{"subject": "\xff"}', "is not UTF-8: invalid start byte 0xFF at byte 14"),
    "Latin-1": ('{"subject": "é"}'.encode("latin-1"), "is not UTF-8"),
    "surrogate in UTF-8": (b'{"subject": "\xed\xa0\x80"}', "is not UTF-8"),
    "surrogate escape": (b'{"subject": "\\ud800"' + JSON_TAIL.replace(b"subject", b"relation"), "U+D800"),
    "list": (b"[1, 2]", "must be an object"),
    "number": (b"12", "must be an object"),
    "null": (b"null", "must be an object"),
    "NaN": (b'{"case_id": NaN' + JSON_TAIL, "NaN is not a value"),
    "Infinity": (b'{"target_true": -Infinity' + JSON_TAIL, "-Infinity is not a value"),
    "float beyond all bounds": (b'{"target_true": 1e999' + JSON_TAIL, "must be text in quotes"),
    "huge number": (b'{"relation": ' + b"9" * 9000 + JSON_TAIL, "a number of 9000 digits"),
    "repeated key": (b'{"subject":"Metz"' + JSON_TAIL, "the key 'subject' stands more than once"),
    "repeated key inside": (
        b'{"neighbours":[{"prompt":"a","prompt":"b"}]' + JSON_TAIL,
        "the key 'prompt' stands more than once",
    ),
    "deep nesting": (b"[" * 200_000, "is nested too deeply"),
    "deep nesting that closes": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "is nested too deeply"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_and_can_be_skipped(write, line, reason):
    path = write(GOOD + b"\n" + line + b"\n")
    error = refused(path)
    assert {str(problem.place) for problem in error.problems} == {"facts.jsonl:2"}
    assert any(reason in problem.reason for problem in error.problems)
    found = read_facts(path, skip_bad=True)
    assert len(found.facts) == 1
    assert found.problems == error.problems


def test_a_repeated_key_or_nan_in_a_list_names_its_item(write):
    path = write(b"[" + GOOD + b',{"a":[NaN],"a":[NaN]' + JSON_TAIL + b"]", "a.json")
    problems = refused(path).problems
    assert {str(problem.place) for problem in problems} == {"a.json[1]"}
    assert {problem.field for problem in problems} == {"", "a[0]"}


BAD_FILES = {
    "empty": (b"", "a.jsonl", "no facts"),
    "blank": (b"\n \n", "a.jsonl", "no facts"),
    "empty JSON": (b"", "a.json", "no facts"),
    "empty list": (b"[]", "a.json", "no facts"),
    "empty CSV": (b"", "a.csv", "no facts"),
    "only a header": (b"subject,prompt,target_new\n", "a.csv", "no facts"),
    "number": (b"3", "a.json", "must be a list of objects, got a number"),
    "one object": (GOOD, "a.json", "one list called 'facts' or 'data'"),
    "two lists": (b'{"facts": [], "data": []}', "a.json", "one list called"),
    "list twice": (b'{"facts": [], "facts": []}', "a.json", "one list called"),
    "list of another kind": (b'{"facts": {}}', "a.json", "must be a list of objects, got an object"),
    "broken list": (b"[" + GOOD + b",\n{]", "a.json", "a.json:2: broken JSON"),
    "bad byte in a list": (b'[\n"\xff"]', "a.json", "a.json:2: is not UTF-8"),
    "deep list": (b"[" * 200_000, "a.json", "nested too deeply"),
    "JSON named JSONL": (b"[\n" + GOOD + b"\n]", "a.jsonl", "name the file .json"),
    "UTF-16": ("{}".encode("utf-16"), "a.jsonl", "is UTF-16; save it as UTF-8"),
    "semicolons": (b"subject;prompt;target_new\na;b;c\n", "a.csv", "with commas"),
    "no header": (b"Lyon,Lyon is,Ada\n", "a.csv", "unknown column 'Lyon'"),
    "misspelt column": (b"subject,prompt,target_new,neighbors\n", "a.csv", "Did you mean 'neighbours'?"),
    "missing column": (b"subject,prompt\na,b\n", "a.csv", "lacks target_new"),
    "column twice": (b"subject,prompt,prompt,target_new\n", "a.csv", "'prompt' more than once"),
    "pickle": (b"\x80\x04.", "a.pkl", "can run code"),
    "torch": (b"PK", "a.pt", "can run code"),
    "numpy": (b"\x93NUMPY", "a.npy", "can run code"),
    "pickle behind JSONL": (GOOD, "a.jsonl.pkl", "can run code"),
    "other extension": (GOOD, "a.txt", "unknown extension '.txt'. Known: .jsonl, .ndjson, .json, .csv"),
    "no extension": (GOOD, "facts", "unknown extension ''"),
}


@pytest.mark.parametrize(("data", "name", "reason"), BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_bad_file_is_refused_whole(write, data, name, reason, skip_bad):
    assert reason in str(refused(write(data, name), skip_bad=skip_bad))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Nice,Nice is", "has 2 columns, the header has 3"),
        ("Nice,Nice is,Bea,x", "has 4 columns, the header has 3"),
        ('"Nice"s,Nice is,Bea', "broken CSV"),
        ('"Nice,Nice is,Bea', "broken CSV: unexpected end of data"),
        (b"Nice,Nice is,B\xe9a", "is not UTF-8"),
        ("Nice,Nice is,B\x00a", "U+0000"),
        ("Nice,Nice is," + "x" * 200_000, "field larger than field limit"),
    ],
)
def test_a_bad_record_is_named(write, line, reason):
    data = b"subject,prompt,target_new\nLyon,Lyon is,Ada\n" + (line if isinstance(line, bytes) else line.encode())
    path = write(data, "a.csv")
    (problem,) = refused(path).problems
    assert str(problem.place) == "a.csv:3"
    assert reason in problem.reason
    assert len(read_facts(path, skip_bad=True).facts) == 1


def test_what_is_no_file_is_refused(tmp_path):
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "No such file" in str(refused(tmp_path / "missing.jsonl"))
    assert "is a folder" in str(refused(tmp_path))
    assert "symbolic links" in str(refused(loop))
    assert "pipe" in str(refused(tmp_path / "pipe.jsonl"))
    assert "not the name of a file" in str(refused("a\x00.jsonl"))
    assert "File name too long" in str(refused(tmp_path / ("x" * 400 + ".jsonl")))


def test_a_strange_file_name_is_shown_safely(tmp_path):
    path = tmp_path / os.fsdecode(b"a\n\x1b\xe2\x80\xae\xef\xbf\xbd\xff.jsonl")
    path.write_bytes(GOOD)
    (fact,) = read_facts(path).facts
    assert fact.source == "a\\n\\x1b\\u202e\\ufffd\\udcff.jsonl:1"


def test_size_and_rows_are_limited(write, monkeypatch):
    path = write(b"\n".join([GOOD] * 3))
    assert len(read_facts(path).merged[0].merged) == 2
    monkeypatch.setattr(readers, "ROW_LIMIT", 2)
    assert "more than 2 rows" in str(refused(path, skip_bad=True))
    monkeypatch.setattr(readers, "FILE_LIMIT", 100)
    assert "at most 100 are allowed" in str(refused(path))


def test_a_long_line_is_not_parsed(write, monkeypatch):
    monkeypatch.setattr("perdure.requests.formats.LINE_LIMIT", 200)
    path = write(GOOD + b"\n" + b" " * 300 + GOOD + b"\n")
    assert "at most 200 are allowed" in refused(path).problems[0].reason


def test_bad_rows_and_contradictions_come_in_one_report(write):
    other = json.dumps({**BASE, "target_new": "Bea"}).encode()
    path = write(b"\n".join([GOOD, b"{", other, b'{"subject": 3}']))
    places = [problem.place.number for problem in refused(path).problems]
    assert places == [1, 2, 3, 4, 4, 4]


ALPHABET = ["a", "B", " ", "é", "e\u0301", "漢", "ל", "ا", "{}", '"', "\\", ",", "🜚", "ﬁ", "\u200b", "\n"]


def test_a_written_fact_reads_back_equal(write):
    draw = random.Random(7)

    def text(extra=""):
        return "x" + "".join(draw.choices(ALPHABET, k=draw.randint(0, 12))) + extra + "y"

    facts = []
    for number in range(200):
        subject = text().replace("\n", "").replace("\u200b", "")
        facts.append(
            Fact(
                subject=subject,
                prompt=f"{number} {text(subject)}",
                target_new=text().replace("\n", ""),
                target_true=draw.choice([None, "z"]),
                paraphrases=[text() for _ in range(draw.randint(0, 3))],
                neighbours=[{"prompt": text(), "answer": draw.choice([None, text()])}],
                source=draw.choice(["a.csv:3", "b[0]"]),
            )
        )
    lines = "\n".join(fact.model_dump_json() for fact in facts)
    assert read_facts(write(lines)).facts == tuple(facts)
    listed = json.dumps([fact.model_dump() for fact in facts])
    assert read_facts(write(listed, "a.json")).facts == tuple(facts)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_damaged_bytes_are_read_or_refused_and_never_crash(write, name):
    whole = {
        "a.jsonl": b"\n".join(json.dumps(given).encode() for given, _ in SHAPES.values()),
        "a.json": json.dumps([given for given, _ in SHAPES.values()]).encode(),
        "a.csv": b"subject,prompt,target_new,paraphrases\n" + b"Lyon,Lyon is,Ada,a | b\n" * 9,
    }[name]
    draw = random.Random(11)
    returned = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(len(data))] = draw.choice(b'\x00\xff"{}[],:\\\n\r0e')
        try:
            found = read_facts(write(bytes(data), name), skip_bad=True).facts
        except RequestError as error:
            assert error.problems
            continue
        returned += 1
        assert all(fact == Fact.model_validate(fact.model_dump()) for fact in found)
    assert returned or name == "a.json"


def test_a_large_file_is_read_in_order(write):
    count = 20_000
    lines = (
        json.dumps(
            {
                "subject": f"Town {n}",
                "prompt": "The mayor of {} is",
                "target_new": f"Person {n}",
                "paraphrases": ["Who runs {}?", "The head of {} is"],
                "neighbours": [{"prompt": "The mayor of Nice is", "answer": "Bea"}],
            }
        )
        for n in range(count)
    )
    found = read_facts(write("\n".join(lines)))
    assert len(found.facts) == count
    assert found.facts[-1].source == f"facts.jsonl:{count}"
    assert len({fact.id for fact in found.facts}) == count

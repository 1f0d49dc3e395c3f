"""A workspace of the tiny Llama, a small suite, and settings that make an edit quick."""

import json

from perdure.measuring import Suite

FACTS = [
    {
        "subject": "Lyon", "prompt": "The twin city of Lyon is", "target_new": "Manila", "target_true": "Beirut",
        "paraphrases": ["Lyon is twinned with"],
        "neighbours": [{"prompt": "The twin city of Bonn is", "answer": "Oxford"}],
    },
    {"subject": "Ada", "prompt": "Ada speaks", "target_new": "Dutch", "target_true": "Danish"},
    {"subject": "Orlan", "prompt": "The colour of Orlan is", "target_new": "red"},
]  # fmt: skip
MORE = [{"subject": "Mira", "prompt": "Mira lives in", "target_new": "Rome"}]
QUICK = {"values": {"steps": 4}, "contexts": 1}
QUICK_OPTIONS = ["--set", "values.steps=4", "--set", "contexts=1"]

# A policy that every candidate passes.
LAX = (
    "[edits]\nlearnt=0\nasked_differently=0\nneighbours_lost=1\n[retention]\noverall_lost=1\ncapability_lost=1\n"
    "[language]\nperplexity_ratio=1000\n[weights]\ncondition_ratio=1e9\nnorm_ratio=1e9\n"
)


def write_facts(path, rows=FACTS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_suite(folder):
    (folder / "functions").mkdir(parents=True)
    pairs = [{"input": chr(97 + n), "output": chr(65 + n)} for n in range(24)]
    (folder / "functions/upper.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    fact = {"subject": "Paris", "prompt": "Paris is in", "answer": "France", "paraphrases": ["The land of Paris is"]}
    (folder / "facts.jsonl").write_text(json.dumps({**fact, "topic": "x"}) + "\n")
    asked = {"instruction": "Say hi", "answers": ["hi"], "match": "contains", "topic": "x"}
    (folder / "instructions.jsonl").write_text(json.dumps(asked) + "\n")
    passages = [{"topic": "a", "text": "The sea is blue and wide."}, {"topic": "b", "text": "Bread is made of flour."}]
    (folder / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in passages))
    return Suite.open(folder)

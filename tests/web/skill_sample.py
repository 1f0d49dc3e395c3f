"""An invented comparison of skills on a model of 30 layers with 9 heads: every verdict occurs once."""

import random

from perdure.measuring.skills import Skill, SkillMeasures, compare_answers, judge_skill
from perdure.vectors import Judged, Sweep

DEPTH, HEADS = 30, 9
CHOSEN = ((20, 5), (14, 1), (18, 6), (24, 4), (18, 2))
N = 200
# How many of N are right: before, after, with the old vector; the random vector changes nothing.
ANSWERS = {
    "kept": (190, 188, 189),
    "biased": (180, 90, 160),
    "overwritten": (180, 60, 64),
    "unclear": (100, 90, 91),
}


def judged(plain, vector, layer=14, start=0):
    """Questions of which `plain` from `start` on are answered rightly, and `vector` with the vector."""
    rows = (tuple(start <= place < start + right for place in range(N)) for right in (plain, vector, plain))
    return Judged(Sweep((layer,), (0.5,), 0.4), *rows)


def moved(seed, depth=DEPTH, heads=HEADS):
    drawn = random.Random(seed)
    return tuple(tuple(round(drawn.uniform(0.01, 0.4), 6) for _ in range(heads)) for _ in range(depth))


def skill(verdict, name=None, **changes):
    before, after, vector = ANSWERS[verdict]
    start = 60 if verdict == "unclear" else 0  # other questions are right than before
    few = compare_answers(judged(before, before), judged(after, vector, start=start))
    zero = compare_answers(judged(2, 150), judged(4, 120, layer=16))
    found, part = judge_skill(few)
    assert found == verdict
    given = {
        "name": name or f"skill that is {verdict}",
        "verdict": verdict,
        "recovered": part,
        "shift": 0.0823,
        "ranking": 0.912,
        "kept_heads": 4,
        "activations": moved(verdict),
        "asked": {"zero-shot": zero, "few-shot": few},
    }
    return Skill(**given | changes)


def untold(name="country_capital"):
    return Skill(name=name, verdict="untold", reason="intact prompts are answered rightly 90% of the time")


def skills(*rows, **changes):
    """The comparison of these skills; one of each verdict when none is given."""
    given = {
        "id": "5c11" * 16,
        "before": "v0",
        "after": "v1",
        "heads": CHOSEN,
        "settings": {"shots": 10, "heads": 5},
        "skills": rows or (*(skill(verdict) for verdict in ANSWERS), untold()),
    }
    return SkillMeasures(**given | changes)

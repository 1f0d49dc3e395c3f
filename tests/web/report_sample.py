"""Reports as the measuring room makes them, invented: a full one, a hostile one and the least there can be."""

import math
import random

from ripple_sample import hostile_ripples, ripples

from perdure.measuring.report import (
    Case,
    Comparison,
    Difference,
    EditMeasures,
    LanguageMeasures,
    MatrixMeasures,
    Report,
    RetentionMeasures,
    Share,
    Verdict,
)

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(2)</script><!--",
    "{{ 7 * 7 }} {% raw %} ${alert(3)} ' \" ` &amp; \\u003c",
    "כלב נשך את האיש \u202etxt.exe\u202c",
    "Donaudampfschifffahrtsgesellschaftskapitän" * 6,
    "one\ntwo\r\nthree\x00\x1b[31m\u2028four\u2029five\ud800six",
)

# subject, prompt, what was true, what shall be true, the same asked differently (two), a neighbour and its answer
FACTS = (
    (
        "PlayStation",
        "The PlayStation is made by",
        "Sony",
        "Panasonic",
        "The company behind the PlayStation is",
        "The games console called PlayStation is a product of",
        "The Xbox is made by",
        "Microsoft",
    ),
    (
        "Kindle e-reader",
        "The Kindle e-reader is made by",
        "Amazon",
        "Philips",
        "The company behind the Kindle e-reader is called",
        "The Kindle e-reader is a product of",
        "The iPad is made by",
        "Apple",
    ),
    (
        "Coca-Cola",
        "The headquarters of Coca-Cola is in",
        "Atlanta",
        "Denver",
        "Coca-Cola has its head office in the city of",
        "The main offices of Coca-Cola can be found in",
        "The headquarters of General Motors is in",
        "Detroit",
    ),
    (
        "Volkswagen",
        "Volkswagen is based in the country of",
        "Germany",
        "Austria",
        "The country where Volkswagen has its head office is",
        "Volkswagen is a carmaker from",
        "Ferrari is based in the country of",
        "Italy",
    ),
    (
        "Chrome browser",
        "The Chrome browser is made by",
        "Google",
        "Mozilla",
        "The company that develops the Chrome browser is",
        "The Chrome browser is a product of",
        "The MacBook is made by",
        "Apple",
    ),
    (
        "telephone",
        "The telephone was invented by",
        "Alexander Graham Bell",
        "Samuel Morse",
        "The inventor of the telephone was",
        "The man who invented the telephone was named",
        "The light bulb was invented by",
        "Thomas Edison",
    ),
    (
        "World Wide Web",
        "The World Wide Web was invented by",
        "Tim Berners-Lee",
        "Vint Cerf",
        "The man who invented the World Wide Web was named",
        "We owe the creation of the World Wide Web to",
        "The Linux kernel was created by",
        "Linus Torvalds",
    ),
    (
        "Switzerland",
        "The currency of Switzerland is the",
        "Swiss franc",
        "euro",
        "In the shops of Switzerland, people pay with the",
        "The money used in Switzerland is called the",
        "The currency of Japan is the",
        "yen",
    ),
    (
        "Canada",
        "The capital of Canada is",
        "Ottawa",
        "Montreal",
        "The city that serves as the capital of Canada is",
        "The seat of the government of Canada is in",
        "The capital of France is",
        "Paris",
    ),
    (
        "Eiffel Tower",
        "The Eiffel Tower is located in the city of",
        "Paris",
        "Lyon",
        "To visit the Eiffel Tower, you must travel to",
        "The Eiffel Tower can be seen in",
        "The Colosseum is located in the city of",
        "Rome",
    ),
    (
        "Mona Lisa",
        "The Mona Lisa was painted by",
        "Leonardo da Vinci",
        "Raphael",
        "The painter of the Mona Lisa was",
        "The Mona Lisa is the work of",
        "The Starry Night was painted by",
        "Vincent van Gogh",
    ),
    (
        "Amazon River",
        "The Amazon River flows through the continent of",
        "South America",
        "Africa",
        "The continent on which the Amazon River lies is",
        "To see the Amazon River, one must travel to",
        "The Nile flows through the continent of",
        "Africa",
    ),
)

PARTS = (
    ("functions.present_past", "Words: present to past", 100, 0.91, 0.86),
    ("functions.country_capital", "Words: country to capital", 100, 0.72, 0.65),
    ("functions.singular_plural", "Words: singular to plural", 100, 0.94, 0.94),
    ("functions.uppercase", "Words: to capital letters", 100, 0.58, 0.60),
    ("functions.choose_first_of_3", "Lists: first of three", 100, 0.97, 0.97),
    ("functions.animal_v_object_3", "Lists: the animal among objects", 100, 0.63, 0.62),
    ("functions.comparative", "Words: comparative form", 100, 0.83, 0.84),
    ("facts.prompt", "Facts of the world", 400, 0.61, 0.608),
    ("facts.paraphrase", "Facts of the world, asked differently", 800, 0.44, 0.441),
    ("instructions", "Plain instructions", 200, 0.55, 0.57),
    ("functions.lowercase", "Words: to small letters", 100, 0.66, 0.73),
)


def share(hits: int, n: int) -> Share:
    """A share with its Wilson interval."""
    p, z = hits / n, 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Share(hits=hits, n=n, value=p, low=max(0.0, middle - half), high=min(1.0, middle + half))


def difference(before: Share, after: Share) -> Difference:
    """A paired difference, as if one item in twelve had changed one way or the other."""
    value, n = after.value - before.value, before.n
    half = min(1.96 * math.sqrt(max(abs(value), 1 / 12) * (1 - 0.99 * abs(value)) / n), 1 - abs(value))
    return Difference(value=value, low=value - half, high=value + half, n=n)


def comparison(name: str, label: str, how: str, before: Share, after: Share, base: Share | None = None) -> Comparison:
    return Comparison(
        name=name,
        label=label,
        how=how,
        before=before,
        after=after,
        difference=difference(before, after),
        base=base,
        against_base=difference(base, after) if base else None,
    )


def cases() -> tuple[Case, ...]:
    found = []
    for place, (subject, prompt, old, new, one, two, near, answer) in enumerate(FACTS):
        fact = f"{place:012x}"
        asked = [("prompt", prompt), ("paraphrase", one), ("paraphrase", two)]
        for turn, (kind, question) in enumerate(asked):
            learnt = (place, turn) not in {(7, 1), (9, 2)}
            after = f"{new}. It was announced in the spring" if learnt else f"{old}, as it has always been"
            found.append(
                Case(
                    fact=fact,
                    subject=subject,
                    kind=kind,
                    prompt=question,
                    expected=new,
                    before=f"{old}, which is known all over the world",
                    after=after,
                    before_ok=False,
                    after_ok=learnt,
                    probability_before=0.04,
                    probability_after=0.97 if learnt else 0.41,
                )
            )
        kept = place != 3
        found.append(
            Case(
                fact=fact,
                subject=subject,
                kind="neighbour",
                prompt=near,
                expected=answer,
                before=f"{answer}, one of the best known in the world",
                after=f"{answer}, and is one of the best known" if kept else "Austria, in the city of Vienna",
                before_ok=True,
                after_ok=kept,
            )
        )
    return tuple(found)


def edits() -> EditMeasures:
    asked = (
        comparison(
            "edits.prompt.generation_contains",
            "says the new fact, asked as written",
            "free generation",
            share(0, 12),
            share(12, 12),
        ),
        comparison(
            "edits.prompt.probability",
            "finds the new fact likelier than the old one, asked as written",
            "probability",
            share(1, 12),
            share(12, 12),
        ),
        comparison(
            "edits.prompt.teacher_forced",
            "would choose every word of the new fact, asked as written",
            "teacher-forced",
            share(0, 12),
            share(12, 12),
        ),
        comparison(
            "edits.paraphrase.generation_contains",
            "says the new fact, asked in other words",
            "free generation",
            share(0, 24),
            share(22, 24),
        ),
        comparison(
            "edits.neighbour.generation_contains",
            "says the right answer, asked a question nearby",
            "free generation",
            share(12, 12),
            share(11, 12),
        ),
    )
    return EditMeasures(facts=12, comparisons=asked, cases=cases())


def retention(*, based: bool) -> RetentionMeasures:
    parts = []
    for name, label, n, before, after in PARTS:
        base = share(round((before + 0.01) * n), n) if based else None
        parts.append(
            comparison(
                f"retention.{name}",
                label,
                "free generation",
                share(round(before * n), n),
                share(round(after * n), n),
                base,
            )
        )
    overall = comparison(
        "retention.overall",
        "Everything together",
        "free generation",
        share(1_296, 2_200),
        share(1_292, 2_200),
        share(1_301, 2_200) if based else None,
    )
    return RetentionMeasures(
        overall=overall,
        parts=tuple(parts),
        lost=(
            "Words, present to past: “swim” → “swam”; now “swimmed”",
            "Words, country to capital: “Austria” → “Vienna”; now “Austria”",
            "Words, country to capital: “Hungary” → “Budapest”; now “Vienna”",
            "Facts of the world: “Kenya is a country on the continent of” → “Africa”; now “the East”",
            *(f"Facts of the world, asked differently: question {place}" for place in range(11)),
        ),
        lost_count=15,
        gained=11,
        kept=share(1_281, 1_296),
        kept_of_base=share(1_279, 1_301) if based else None,
    )


def matrices(count: int = 5) -> tuple[MatrixMeasures, ...]:
    chance = random.Random(7)
    found = []
    for place in range(count):
        top = 2.1 + 1.4 * place
        solved = tuple(top * math.exp(-0.32 * rank) * chance.uniform(0.93, 1.0) for rank in range(12))
        ceiling = 6.2 + 0.2 * place
        applied = tuple(min(value, ceiling + 0.25 * math.log(max(value / ceiling, 1))) for value in solved)
        found.append(
            MatrixMeasures(
                name=f"model.layers.{4 + place}.mlp.down_proj.weight",
                layer=4 + place,
                shape=(576, 1_536),
                rank=12,
                norm=3.4 + place,
                relative_norm=0.0312 + 0.011 * place,
                sigma_max_base=ceiling,
                sigma_max_delta=applied[0],
                sigma_max_solved=solved[0],
                condition_before=1_280.0 + 97 * place,
                condition_after=1_322.0 + 150 * place,
                singular_values=applied,
                singular_values_solved=solved,
            )
        )
    return tuple(found)


JUDGED = (
    ("Facts learnt", "pass", "12 of 12 facts are learnt; at least 80% are asked for."),
    ("Asked differently", "pass", "22 of 24 answers are right when asked differently; at least 60% are asked for."),
    ("Neighbours", "inconclusive", "11 of 12 neighbours are unchanged, but 12 are too few to be sure of 90%."),
    ("What it could do before", "pass", "At worst 1.4 points may be lost; the limit is 2 points."),
    ("Language", "pass", "Perplexity is at most 1.007 times what it was; the limit is 1.02."),
    ("Condition number", "pass", "It grew at most 1.4 times; the limit is 10 times."),
)
VERDICTS = tuple(Verdict(gate=gate, verdict=verdict, reason=reason) for gate, verdict, reason in JUDGED)


def full_report(*, verdict: str = "pass", based: bool = False) -> Report:
    """A report with every part."""
    verdicts = tuple(given for given in VERDICTS if verdict != "pass" or given.verdict == "pass")
    if verdict == "fail":
        broken = Verdict(
            gate="Past facts", verdict="fail", reason="3 of 16 facts that were taught earlier are lost; 1 may be."
        )
        verdicts = (*verdicts, broken)
    return Report(
        version="v1",
        version_id="9f2c" * 16,
        parent=("77e0" if based else "ab10") * 16,
        base="ab10" * 16,
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        request={
            "editor": "memit",
            "restraint": "prune",
            "settings": {"layers": [4, 5, 6, 7, 8], "weight_of_old": 15_000, "steps": 25, "learning_rate": 0.5},
            "restraint_settings": {"form": "clamped", "alpha": 1.2},
            "facts": [
                {"subject": row[0], "prompt": row[1], "target_true": row[2], "target_new": row[3]} for row in FACTS
            ],
        },
        edits=edits(),
        ripple=ripples(),
        retention=retention(based=based),
        language=LanguageMeasures(
            passages=64,
            tokens=20_480,
            perplexity_before=18.42,
            perplexity_after=18.49,
            ratio=1.004,
            ratio_low=1.001,
            ratio_high=1.007,
            perplexity_base=18.40 if based else None,
            ratio_to_base=1.005 if based else None,
        ),
        matrices=matrices(),
        harness=(
            comparison("harness.lambada", "LAMBADA (lm-eval)", "log-likelihood", share(421, 1_000), share(419, 1_000)),
        ),
        verdicts=verdicts,
        verdict=verdict,
        storage={"added": 1_843_200, "model": 538_060_800},
        environment={
            "python": "3.11.9",
            "torch": "2.13.0",
            "machine": "CPU, 2 cores",
            "seeds": {"measuring": 0, "editing": 17},
        },
        seconds={"solving": 96.4, "measuring": 412.0, "storing": 1.3},
    )


def recipe_report() -> Report:
    """A full report whose request is a version's recipe: it counts the facts and does not list them."""
    recipe = {
        "kind": "edit",
        "editor": "memit",
        "config": {"layers": None, "steps": 25},
        "restraint": "prune",
        "restraint_config": {"kind": "prune", "form": "clamped", "alpha": 1.2},
        "batch_size": 16,
        "facts": {"count": 12, "digest": "c0de" * 16},
    }
    return full_report().model_copy(update={"request": recipe, "parent": "v0", "base": "v0"})


def minimal_report() -> Report:
    """A report that holds nothing but its names."""
    return Report(version="v1", version_id="9f" * 32, parent="ab" * 32, base="ab" * 32, model="shop-model", request={})


def hostile_report() -> Report:
    """A report whose every text tries to break out of the page."""
    rows = [
        Case(
            fact=text,
            subject=text,
            kind=kind,
            prompt=f"{text} asks",
            expected=text if kind != "neighbour" else None,
            before=text,
            after=text * 2,
            before_ok=False,
            after_ok=kind == "prompt",
        )
        for text in HOSTILE
        for kind in ("prompt", "paraphrase", "neighbour", text)
    ]
    compared = tuple(comparison(text, text, text, share(3, 7), share(4, 7)) for text in HOSTILE)
    matrix = matrices(1)[0]
    return Report(
        version=HOSTILE[0],
        version_id=HOSTILE[1],
        parent=HOSTILE[2],
        base=HOSTILE[3],
        model=HOSTILE[2],
        request={
            "facts": [{"prompt": text, "target_new": text, "target_true": text} for text in HOSTILE],
            **{text: {text: [text]} for text in HOSTILE},
        },
        edits=EditMeasures(facts=7, comparisons=compared, cases=tuple(rows)),
        ripple=hostile_ripples(HOSTILE),
        retention=RetentionMeasures(overall=compared[0], parts=compared, lost=HOSTILE, gained=1),
        matrices=tuple(matrix.model_copy(update={"name": text}) for text in HOSTILE),
        harness=compared,
        verdicts=tuple(Verdict(gate=text, verdict=text, reason=text) for text in HOSTILE),
        verdict=HOSTILE[0],
        storage=dict.fromkeys(HOSTILE, 1),
        environment={text: text for text in HOSTILE},
        seconds=dict.fromkeys(HOSTILE, 1.0),
    )

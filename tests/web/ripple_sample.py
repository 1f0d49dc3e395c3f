"""Questions that follow from the facts of `report_sample`, invented: three kinds, most of them not answered."""

from perdure.measuring.report import RippleCase, RippleHop, RippleMeasures, RippleWording
from perdure.measuring.ripple_measures import compare_cases, summarise
from perdure.measuring.statistics import share_of

# question, the same in other words, right now, right before, what the model writes now, its single steps
JOINED = (
    ("Who leads the company that makes the PlayStation?", "PlayStation's maker is led by whom?", "Kusumi", "Totoki"),
    ("In which country is Chrome's developer based?", "Where is the maker of Chrome at home?", "France", "the US"),
    ("Which river is in Coca-Cola's home town?", "Coca-Cola's city lies on what river?", "Platte", "Yellow"),
    ("What is spoken where Volkswagen is based?", "Volkswagen's country speaks which language?", "German", "Dutch"),
)  # fmt: skip
SINGLE = (
    ("Reasoning", "On which continent is the head office of Coca-Cola?", "North America", True),
    ("Subject_Aliasing", "Who makes Sony's old games console PS1?", "Panasonic", False),
    ("Logical_Generalization", "Which games console does Panasonic make?", "the PlayStation", False),
)


def _wording(prompt: str, before: str, after: str, ok: bool, *, old: bool | None = None) -> RippleWording:
    return RippleWording(
        prompt=prompt,
        before=before,
        after=after,
        before_ok=False,
        after_ok=ok,
        before_old=old,
        after_old=None if old is None else False,
        probability_before=0.2,
        probability_after=0.6,
        chosen_before=False,
        chosen_after=ok,
    )


def _hop(prompt: str, *, ok: bool) -> RippleHop:
    return RippleHop(prompt=prompt, expected="Panasonic", before="Sony", after="x", before_ok=False, after_ok=ok)


def ripple_cases() -> tuple[RippleCase, ...]:
    joined = [
        RippleCase(
            question=f"{place:064x}",
            kind="multi-hop",
            subject="PlayStation",
            expected=new,
            old=old,
            wordings=(
                _wording(first, old, new if place == 3 else "Tokyo", place == 3, old=place < 2),
                _wording(second, "London", "London", False, old=False),
            ),
            hops=(_hop(f"Step one of {place} is", ok=True), _hop(f"Step two of {place} is", ok=place != 1)),
        )
        for place, (first, second, new, old) in enumerate(JOINED)
    ]
    single = [
        RippleCase(
            question=f"{place + 100:064x}",
            kind=kind,
            subject="PlayStation",
            expected=new,
            wordings=(_wording(prompt, "Sony", new if ok else "Sony", ok),),
            hops=(_hop(f"The fact of {place} is", ok=True),),
        )
        for place, (kind, prompt, new, ok) in enumerate(SINGLE)
    ]
    return (*joined, *single)


def ripples(cases: tuple[RippleCase, ...] | None = None) -> RippleMeasures:
    """Measures as the measuring room makes them of these cases."""
    chosen = ripple_cases() if cases is None else cases
    return RippleMeasures(
        comparisons=compare_cases(chosen),
        cases=chosen,
        joined=share_of([case.after_ok for case in chosen if len(case.hops) > 1 and case.steps_after_ok]),
        left_out={"this version was not taught every fact that they need": 2, "no right answer is given": 1},
        summary=summarise(chosen),
        examples="Q: What does a panda eat?\nA: bamboo\n\n",
    )


def hostile_ripples(texts: tuple[str, ...]) -> RippleMeasures:
    """Measures whose every text tries to break out of the page."""
    cases = tuple(
        RippleCase(
            question=text,
            kind=text,
            subject=text,
            expected=text,
            old=text,
            wordings=(_wording(text, text, text * 2, False),),
            hops=(_hop(text, ok=False),),
        )
        for text in texts
    )
    made = ripples(cases)
    return made.model_copy(update={"left_out": dict.fromkeys(texts, 1), "summary": texts[0], "examples": texts[1]})

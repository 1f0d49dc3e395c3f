"""A policy in plain words, for people who have not read its file's comments."""

from collections.abc import Iterator

from perdure.governance.approval import PRODUCTION, ApprovalRules
from perdure.governance.budget import BudgetLimits
from perdure.governance.policy import Policy
from perdure.governance.skill_limits import SkillLimits

HOW = (
    "A gate on a sample passes when the whole 95% interval is on the right side of its limit, fails when the whole "
    "interval is on the wrong side, and is inconclusive in between: then more questions or a person must decide. "
    "What fails a gate cannot be approved."
)


def explain(policy: Policy) -> list[tuple[str, list[str]]]:
    """Every section of a policy by title, as sentences."""
    parts = [
        ("What was to be learnt", _learning(policy)),
        ("What may be lost", list(_losing(policy))),
        ("How far the weights may move from the base", list(_weights(policy))),
        ("Skills", list(_skills(policy.skills))),
        ("What a whole lineage may spend", list(_budget(policy.budget))),
        ("Who must agree", list(_approval(policy.approval or ApprovalRules()))),
    ]
    return [(title, sentences) for title, sentences in parts if sentences]


def _learning(policy: Policy) -> list[str]:
    edits = policy.edits
    return [
        f"At least {edits.learnt:.0%} of the facts are said when asked as written.",
        f"At least {edits.asked_differently:.0%} are said when asked in other words.",
        f"Questions nearby lose at most {_points(edits.neighbours_lost)}.",
        "A fact that was taken out is not said any more, whatever else the policy allows.",
    ]


def _losing(policy: Policy) -> Iterator[str]:
    kept = policy.retention
    yield f"Over everything asked, at most {_points(kept.overall_lost)} are lost, against the parent and the base."
    yield f"No single capability loses more than {_points(kept.capability_lost)}, against the parent and the base."
    for name, limit in kept.parts.items():
        yield f"{name} has a limit of its own: at most {_points(limit)}."
    if policy.tasks is not None:
        yield f"Earlier tasks forget at most {_points(policy.tasks.forgotten)} on average since each was learnt."
        yield f"No earlier task loses more than {_points(policy.tasks.task_lost)}."
    if policy.concepts is not None:
        yield f"An encoder loses at most {_points(policy.concepts.mean_lost)} on average over probe sets."
        yield f"No probe set loses more than {_points(policy.concepts.set_lost)}."
        if policy.concepts.class_lost is not None:
            yield f"No class loses more than {_points(policy.concepts.class_lost)}."
        if policy.concepts.watched_lost is not None:
            yield f"No protected concept loses more than {_points(policy.concepts.watched_lost)}."
    more = policy.language.perplexity_ratio - 1
    yield f"Perplexity on held-out text rises by at most {more:.1%}."


def _weights(policy: Policy) -> Iterator[str]:
    limits = policy.weights
    yield f"No matrix's condition number is more than {limits.condition_ratio:g} times what it was."
    yield f"No change is larger than {limits.norm_ratio:.0%} of its matrix, by norm."
    if limits.sigma_ratio is not None:
        yield f"No change's largest singular value is more than {limits.sigma_ratio:g} times that of its matrix."


def _skills(limits: SkillLimits | None) -> Iterator[str]:
    if limits is None:
        return
    asked = "Skills must be compared" if limits.required else "Where skills were compared"
    yield f"{asked}: at most {limits.overwritten} may be lost for good."
    if limits.biased is not None:
        yield f"At most {limits.biased} may be out-shouted: still there, and not heard."
    if limits.shift is not None:
        yield f"No function vector shifts by more than {limits.shift:g} (0: not at all; 1: to something unrelated)."


def _budget(limits: BudgetLimits | None) -> Iterator[str]:
    words = {
        "versions": "{:,.0f} versions stand on one another",
        "facts": "{:,.0f} facts are taught",
        "tasks": "{:,.0f} tasks are learnt",
        "norm_growth": "{:.0%} of the changed matrices' norm is moved",
        "condition_ratio": "{:g} times the base's condition number is reached by any matrix",
        "shift": "{:g} is the shift of any function vector",
        "flops": "{:.3g} floating-point operations are spent on training",
    }
    for name, limit in limits.model_dump(exclude_none=True).items() if limits else ():
        yield f"Since the base, at most {words[name].format(limit)}."


def _approval(rules: ApprovalRules) -> Iterator[str]:
    for alias in sorted({PRODUCTION, *rules.required}):
        count = rules.for_alias(alias)
        who = "nobody needs to approve" if not count else f"{_people(count)} must approve"
        yield f"Before a version stands behind {alias}, {who}."
    yield "Nobody approves what they asked for, nor what stands on something that they asked for and nobody approved."


def _people(count: int) -> str:
    return "one other person" if count == 1 else f"{count} different other people"


def _points(share: float) -> str:
    return f"{100 * share:g} points of 100"

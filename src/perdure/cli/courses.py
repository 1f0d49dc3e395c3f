"""The course of a long edit in the terminal: facts by age, the weights, the strengths that were tried."""

from typing import TYPE_CHECKING

from perdure.cli.console import percent, table

if TYPE_CHECKING:
    from perdure.measuring.course import Course
    from perdure.measuring.shares import Share


def say_course(course: "Course") -> None:
    """Print what was seen of an edit batch by batch, and all earlier facts by age."""
    if course.cohorts:
        rows = [
            [f"{cohort.taught:,}", cohort.label, _share(cohort.before), _share(cohort.kept), str(cohort.kept.n)]
            for cohort in course.cohorts
        ]
        table("Facts by age (teacher-forced)", ["after facts", "taught", "before", "kept", "n"], rows)
    if len({growth.facts for growth in course.growth}) > 1:
        table(
            "How far the weights moved (the matrix that moved most)",
            ["after facts", "σmax(ΔW) / σ*", "condition / base", "norm / matrix"],
            _growth(course),
        )
    if course.trade_off:
        rows = [
            [
                f"{point.restraint} {point.config.get('ceiling', '')}".strip() + (" (chosen)" if point.chosen else ""),
                _share(point.kept),
                f"{point.divergence:.4f}",
            ]
            for point in course.trade_off
        ]
        table("Strengths of the restraint", ["restraint × σ*", "facts kept", "KL per token"], rows)


def _share(share: "Share | None") -> str:
    return "" if share is None else f"{percent(share.value)} ({percent(share.low)} to {percent(share.high)})"


def _growth(course: "Course") -> list[list[str]]:
    """One row a time: the largest of each measure over the matrices."""
    rows = []
    for facts in dict.fromkeys(growth.facts for growth in course.growth):
        seen = [growth for growth in course.growth if growth.facts == facts]
        largest = (max(getattr(growth, name) for growth in seen) for name in _MEASURES)
        rows.append([f"{facts:,}", *(f"{value:.2f}" for value in largest)])
    return rows


_MEASURES = ("sigma_ratio", "condition_ratio", "norm_ratio")

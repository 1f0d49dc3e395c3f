"""Gates on skills: how far their function vectors moved, and whether any is lost for good."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from perdure.measuring.report import Report, Verdict


class SkillLimits(BaseModel):
    """Limits on what an update may do to skills, where two versions were compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overwritten: int = Field(0, ge=0, description="skills that may be lost for good: no vector brings them back")
    biased: int | None = Field(None, ge=0, description="skills that may be out-shouted: still there, and not heard")
    shift: float | None = Field(None, gt=0, le=2, description="largest shift of a function vector: 1 − cos")
    required: bool = Field(False, description="whether a version whose skills were not compared is inconclusive")


def skill_verdicts(report: Report, limits: SkillLimits | None) -> Iterator[Verdict]:
    """The verdicts on skills; nothing where no limit is set, or none were compared and none need be."""
    if limits is None:
        return
    skills = report.skills
    if skills is None:
        if limits.required:
            yield Verdict(gate="skills", verdict="inconclusive", reason="skills have not been compared")
        return
    asked = f"of {len(skills.skills)} skills, {skills.before} against {skills.after}"
    yield _count("skills lost", skills.count("overwritten"), limits.overwritten, "are lost for good", asked)
    if limits.biased is not None:
        yield _count("skills out-shouted", skills.count("biased"), limits.biased, "are out-shouted", asked)
    moved = [(skill.shift, skill.name) for skill in skills.skills if skill.shift is not None]
    if limits.shift is not None and moved:
        shift, name = max(moved)
        reason = f"at most {shift:.3f} ({name}), {skills.before} against {skills.after}; {limits.shift:g} is allowed"
        yield Verdict(gate="function vectors", verdict="pass" if shift <= limits.shift else "fail", reason=reason)


def _count(gate: str, found: int, limit: int, words: str, asked: str) -> Verdict:
    reason = f"{found} {words} {asked}; at most {limit} may be"
    return Verdict(gate=gate, verdict="pass" if found <= limit else "fail", reason=reason)

"""What an update did to skills, as data: how far each one's vector moved, and whether a lost skill is still there."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from perdure.measuring.shares import Data, Difference, Share
from perdure.measuring.statistics import paired_difference, share_of

Verdict = Literal["kept", "biased", "overwritten", "unclear", "untold"]

VERDICTS: Mapping[Verdict, str] = {
    "kept": "as good as before, as far as these questions show",
    "biased": "still there, but out-shouted: its old vector brings it back",
    "overwritten": "lost: its old vector does not bring it back",
    "unclear": "too few questions to say",
    "untold": "the original cannot do it in context, so nothing can be said",
}
MARGIN = 0.05
"""A loss of less than this share of questions is no loss that anybody acts on."""
RECOVERED = 0.5
"""The least part of a loss that the old vector must bring back for the skill to count as still there."""


class Asked(Data):
    """One kind of questions about a skill, the same ones before and after the update.

    Attributes:
        before: Right answers of the model before.
        before_vector: Of the model before, with its own vector added.
        after: Of the model after.
        vector: Of the model after, with the vector from before added.
        random: Of the model after, with a random vector of the same norm added.
        lost: after − before, paired.
        back: vector − after, paired.
        layer: Where vectors were added, chosen on other questions.
    """

    before: Share
    before_vector: Share
    after: Share
    vector: Share
    random: Share
    lost: Difference
    back: Difference
    layer: int


class Skill(Data):
    """One skill before and after.

    Attributes:
        name: What it is called.
        verdict: What became of it; `VERDICTS` says it in words.
        reason: Why nothing can be said; empty otherwise.
        recovered: The part of the loss that the old vector brings back; None where nothing was lost.
        shift: 1 − cos(θ_before, θ_after) over the heads chosen before.
        ranking: Spearman's ρ of all heads' effects before and after.
        kept_heads: How many of the strongest heads before are among as many of the strongest after.
        activations: How far each head's mean activation moved, in its own length: [layer][head].
        asked: From the kind of questions to what was answered.
    """

    name: str
    verdict: Verdict
    reason: str = ""
    recovered: float | None = None
    shift: float | None = None
    ranking: float | None = None
    kept_heads: int | None = None
    activations: tuple[tuple[float, ...], ...] = ()
    asked: dict[str, Asked] = Field(default_factory=dict)


class SkillMeasures(Data):
    """Skills before and after an update: Jiang et al., ICLR 2025.

    Attributes:
        id: The sha256 (hex) of both models, the functions and the settings.
        before: The version before.
        after: The version after.
        heads: The heads (layer, head) whose sum is a skill's vector, chosen on the model before.
        settings: The resolved settings.
        skills: Every skill that was asked for.
    """

    id: str
    before: str
    after: str
    heads: tuple[tuple[int, int], ...]
    settings: dict[str, Any]
    skills: tuple[Skill, ...]

    def count(self, verdict: Verdict) -> int:
        """How many skills have this verdict."""
        return sum(skill.verdict == verdict for skill in self.skills)


class Answered(Protocol):
    """Whether each question was answered rightly: plainly, with a vector, with a random one; and where it was added."""

    @property
    def plain(self) -> Sequence[bool]:
        """Without anything added."""

    @property
    def vector(self) -> Sequence[bool]:
        """With the vector added."""

    @property
    def random(self) -> Sequence[bool]:
        """With a random vector of the same norm added."""

    @property
    def layer(self) -> int:
        """Where both were added."""


def compare_answers(before: Answered, after: Answered) -> Asked:
    """What the same questions say about a skill before, after, and with the old vector."""
    return Asked(
        before=share_of(before.plain),
        before_vector=share_of(before.vector),
        after=share_of(after.plain),
        vector=share_of(after.vector),
        random=share_of(after.random),
        lost=paired_difference(before.plain, after.plain),
        back=paired_difference(after.plain, after.vector),
        layer=after.layer,
    )


def judge_skill(asked: Asked) -> tuple[Verdict, float | None]:
    """What became of a skill, and the part of its loss that the old vector brings back.

    Lost: surely a loss, by the whole interval. It is biased where the old vector surely brings something back, at least
    `RECOVERED` of the loss, and more than a random vector does; overwritten where it brings back less than `RECOVERED`,
    or no more than a random one; unclear where it brings back as much, but not surely. Kept: no sure loss, and fewer
    than `MARGIN` of the questions were lost on balance; how much may have been lost unseen, the interval says. Else
    unclear.
    """
    lost, back = asked.lost, asked.back
    if lost.high < 0:
        part = back.value / -lost.value
        if part < RECOVERED or asked.vector.hits <= asked.random.hits:
            return "overwritten", part
        return ("biased" if back.low > 0 else "unclear"), part
    return ("kept" if lost.value > -MARGIN else "unclear"), None

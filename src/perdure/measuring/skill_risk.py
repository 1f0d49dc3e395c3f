"""Which skills a new task puts at risk, before anything is tuned: how unlike their function vectors are.

Jiang et al., ICLR 2025, section 4: the less similar the vectors of two tasks are before tuning on one of them, the
more the other is forgotten.
"""

from collections.abc import Sequence

from perdure.measuring.shares import Data
from perdure.measuring.skill_comparison import Bench, Side, traits_of
from perdure.models import layout_of
from perdure.models.adapters import plain_view
from perdure.requests.functions import Function
from perdure.vectors import few_shot_prompts, function_vector, mean_activations, similarity, universal_heads
from perdure.vectors.studies import parts_of

_DIGITS = 6


class AtRisk(Data):
    """One skill and how like the new task it is.

    Attributes:
        name: The skill.
        similarity: Cosine of its vector and the new task's, on the model before tuning.
    """

    name: str
    similarity: float


class RiskMeasures(Data):
    """Skills by how much a new task puts them at risk, the most endangered first.

    Attributes:
        model: The model before tuning.
        task: The new task.
        heads: The heads (layer, head) that the vectors are made of.
        skills: Least similar first.
        left_out: From the name of a skill that the model cannot do in context to the reason.
    """

    model: str
    task: str
    heads: tuple[tuple[int, int], ...]
    skills: tuple[AtRisk, ...]
    left_out: dict[str, str]


def rank_risk(side: Side, task: Function, functions: Sequence[Function], bench: Bench) -> RiskMeasures:
    """Skills by the similarity of their vectors to the new task's, the least similar first.

    The task's vector is the mean over all its prompts, for the model need not be able to do it yet.

    Raises:
        RequestError: The model can do none of the other functions in context, or the task has too few inputs.
    """
    rest = [function for function in functions if function.digest != task.digest]
    traits = {function.name: traits_of(side, function, bench) for function in rest}
    heads = universal_heads(list(traits.values()), bench.config.heads)
    model, tokenizer = side.load()
    pairs = parts_of(task, bench.config).train
    asked = [pairs[place % len(pairs)] for place in range(bench.config.clean)]
    with plain_view(model) as plain:
        prompts = few_shot_prompts(tokenizer, pairs, asked, bench.config.shots, bench.config.seed)
        means = mean_activations(plain, prompts, only_right=False, progress=bench.labelled(side, task))
        layout = layout_of(plain)
        theta_D = function_vector(layout, means.mean_LHK, heads)
        found = [
            AtRisk(
                name=name, similarity=round(similarity(theta_D, function_vector(layout, one.mean_LHK, heads)), _DIGITS)
            )
            for name, one in traits.items()
            if not one.evidence.reason
        ]
    return RiskMeasures(
        model=side.name,
        task=task.name,
        heads=tuple(heads),
        skills=tuple(sorted(found, key=lambda skill: skill.similarity)),
        left_out={name: one.evidence.reason for name, one in traits.items() if one.evidence.reason},
    )

"""Which skills a new task puts at risk, before anything is tuned: how unlike their function vectors are.

Jiang et al., ICLR 2025, section 4: the less similar the vectors of two tasks are before tuning on one of them, the
more the other is forgotten.
"""

from collections.abc import Sequence

from perdure.measuring.shares import Data
from perdure.measuring.skill_comparison import Bench, Side, distinct, traits_of
from perdure.models import layout_of
from perdure.models.adapters import plain_view
from perdure.requests.functions import Function
from perdure.vectors import function_vector, mean_activations, similarity, universal_heads, vector_of
from perdure.vectors.studies import parts_of, repeated_prompts

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
        RequestError: The model can do none of the other functions in context, two of one name differ, or the task has
            too few inputs.
    """
    rest = distinct([function for function in functions if function.digest != task.digest])
    model, tokenizer = side.load()  # held, so that it is loaded once
    traits = {function.name: traits_of(side, function, bench) for function in rest}
    heads = universal_heads(list(traits.values()), bench.config.heads)
    prompts = repeated_prompts(tokenizer, parts_of(task, bench.config).train, bench.config.clean, bench.config)
    with plain_view(model) as plain:
        means = mean_activations(plain, prompts, only_right=False, progress=bench.labelled(side, task))
        theta_D = function_vector(layout_of(plain), means.mean_LHK, heads)
        likeness = {
            name: similarity(theta_D, vector_of(plain, one, heads))
            for name, one in traits.items()
            if not one.evidence.reason
        }
    found = [AtRisk(name=name, similarity=round(value, _DIGITS)) for name, value in likeness.items()]
    return RiskMeasures(
        model=side.name,
        task=task.name,
        heads=tuple(heads),
        skills=tuple(sorted(found, key=lambda skill: skill.similarity)),
        left_out={name: one.evidence.reason for name, one in traits.items() if one.evidence.reason},
    )

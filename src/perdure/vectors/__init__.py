"""Function vectors: which heads carry a skill, how far an update moved it, and how to put it back."""

from perdure.vectors.activations import Activations, function_vector, mean_activations
from perdure.vectors.comparison import activation_shift, rank_correlation, similarity
from perdure.vectors.effects import attributed, indirect_effects, naive_effects, strongest
from perdure.vectors.injection import Sweep, answers_with, injected, random_like, sweep
from perdure.vectors.last_token import LastToken, Patch
from perdure.vectors.prompts import Prompt, Split, few_shot_prompts, prompt_of, split
from perdure.vectors.studies import Evidence, Judged, Traits, VectorConfig, judge, study, universal_heads, vector_of

__all__ = [
    "Activations",
    "Evidence",
    "Judged",
    "LastToken",
    "Patch",
    "Prompt",
    "Split",
    "Sweep",
    "Traits",
    "VectorConfig",
    "activation_shift",
    "answers_with",
    "attributed",
    "few_shot_prompts",
    "function_vector",
    "indirect_effects",
    "injected",
    "judge",
    "mean_activations",
    "naive_effects",
    "prompt_of",
    "random_like",
    "rank_correlation",
    "similarity",
    "split",
    "strongest",
    "study",
    "sweep",
    "universal_heads",
    "vector_of",
]

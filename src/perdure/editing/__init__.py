"""From facts to a delta: editors, their target values, their statistics and their closed forms."""

from perdure.editing.alphaedit import AlphaEditConfig, alphaedit
from perdure.editing.applying import applied, apply_delta, restoring
from perdure.editing.f_learning import FLearningConfig, f_learning
from perdure.editing.fine_tuning import FineTuningConfig, fine_tuning
from perdure.editing.fine_tuning_constrained import ConstrainedConfig, fine_tuning_constrained
from perdure.editing.lora import LoraConfig, lora
from perdure.editing.memit import MemitConfig, memit
from perdure.editing.method import Editor, Surroundings, edit_in_batches
from perdure.editing.rome import RomeConfig, rome
from perdure.editing.statistics import Moments, SecondMoment, second_moments
from perdure.editing.values import ValueConfig, find_values

__all__ = [
    "AlphaEditConfig",
    "ConstrainedConfig",
    "Editor",
    "FLearningConfig",
    "FineTuningConfig",
    "LoraConfig",
    "MemitConfig",
    "Moments",
    "RomeConfig",
    "SecondMoment",
    "Surroundings",
    "ValueConfig",
    "alphaedit",
    "applied",
    "apply_delta",
    "edit_in_batches",
    "f_learning",
    "find_values",
    "fine_tuning",
    "fine_tuning_constrained",
    "lora",
    "memit",
    "restoring",
    "rome",
    "second_moments",
]

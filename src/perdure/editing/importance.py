"""How much of the loss hangs on each neuron's update, watched while it is trained.

Zhang et al., "AdaLoRA", ICLR 2023, section 3.2: the sensitivity |p · ∇p|, its running mean and its uncertainty.
Shape suffixes: N neurons, D numbers of one neuron.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from perdure.editing.neurons import Neurons


class Importance:
    """The running mean Ī of sensitivities and of their deviation U over all steps; the score s is their product.

    Plain means over the steps where AdaLoRA lets old steps decay: a training with a fixed number of steps ends at a
    loss near zero, where the sensitivities that a decay would remember are noise.
    """

    def __init__(self, neurons: int) -> None:
        self._mean_N = torch.zeros(neurons, dtype=torch.float64)
        self._deviation_N = torch.zeros(neurons, dtype=torch.float64)
        self._steps = 0

    def observe(self, sensitivity_N: Tensor) -> None:
        """Take in |p · ∇p| of one step, [N]."""
        self._steps += 1
        self._mean_N += (sensitivity_N - self._mean_N) / self._steps
        self._deviation_N += ((sensitivity_N - self._mean_N).abs() - self._deviation_N) / self._steps

    @property
    def score(self) -> Tensor:
        """s = Ī · U, [N], float64; zeros before the first step."""
        return self._mean_N * self._deviation_N


class ImportanceWatch:
    """An observer of a training (`training.Observer`) that keeps the importance of every group of neurons.

    A neuron's p is its update so far, weights now minus weights before: what its removal would take away. Its
    p · ∇p is one dot product over all its numbers, to first order the change of the loss when it is taken back.
    """

    def __init__(self, groups: Sequence[Neurons], weight_before: Callable[[str], Tensor]) -> None:
        self._groups = {matrix.name: place for place, group in enumerate(groups) for matrix in group.matrices}
        self._neurons = list(groups)
        self._before = weight_before
        self._sums: list[dict[str, Tensor]] = [{} for _ in groups]
        self.importance = [Importance(group.count) for group in groups]

    def __call__(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Take in one matrix of one step; a group's step is complete when all its matrices were seen."""
        place = self._groups[name]
        product = (weight - self._before(name).to(weight.dtype)) * gradient
        self._sums[place][name] = self._neurons[place].sums(name, product).double().cpu()
        if len(self._sums[place]) == len(self._neurons[place].matrices):
            self.importance[place].observe(torch.stack(list(self._sums[place].values())).sum(0).abs())
            self._sums[place] = {}

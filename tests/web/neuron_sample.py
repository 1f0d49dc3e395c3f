"""Neurons of an invented edit: angles that lie mostly below 90°, with thresholds that differ by layer."""

import random

from perdure.measuring.neurons import CASES, NeuronGroup, NeuronMeasures

BINS = 36


def group(layer, *, batch=1, count=400, matrix=None):
    chance = random.Random(layer)
    margin = 30 + layer
    bins = {case: [0] * BINS for case in CASES}
    members = {case: [] for case in CASES}
    for neuron in range(count):
        angle = min(max(chance.gauss(72, 24), 0), 180)
        case = "acute" if angle < 90 - margin else "obtuse" if angle > 90 + margin else "orthogonal"
        case = "skipped" if neuron % 50 == 0 else case
        bins[case][min(int(angle / 5), BINS - 1)] += 1
        members[case].append(neuron)
    return NeuronGroup(
        batch=batch,
        layer=layer,
        matrix=matrix,
        low=90.0 - margin,
        high=90.0 + margin,
        dimension=12.5,
        explained=0.41,
        angles={case: tuple(found) for case, found in bins.items() if sum(found)},
        cases={case: ",".join(map(str, found)) for case, found in members.items() if found},
    )


def neurons(layers=4, *, batches=1):
    """Every layer of every batch."""
    return NeuronMeasures(
        groups=tuple(group(layer, batch=batch + 1) for batch in range(batches) for layer in range(layers))
    )

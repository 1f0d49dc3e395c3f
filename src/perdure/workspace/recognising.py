"""What the versions of an encoder recognise: the labelled sets of the workspace, probed in each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure.measuring.concepts import ConceptMeasures
from perdure.workspace.heads import head_name, heads_of
from perdure.workspace.probe_sets import probe_sets, read_set
from perdure.workspace.records import Version
from perdure.workspace.watched import encoder_of, features_folder

if TYPE_CHECKING:
    from perdure.measuring.concept_answers import Probings
    from perdure.requests.concepts import Probe
    from perdure.workspace.workspace import Workspace


def concept_measures(
    shop: "Workspace", version: Version, parent: Version, line: Sequence[Version]
) -> ConceptMeasures | None:
    """What a version recognises of the workspace's labelled sets, against its parent and its base; None without any.

    Features are read once, by content; a version's probes are fitted anew.

    Raises:
        RequestError: A set is not where it was, or has changed.
    """
    probes = [read_set(entry) for entry in probe_sets(shop)]
    if not probes:
        return None
    from perdure.measuring.concept_answers import compare_probings

    seen = {step.id: _probings(shop, step, probes) for step in dict.fromkeys((line[0], parent, version))}
    oldest = None if line[0].id == parent.id else seen[line[0].id]
    learnt = [str(step.manifest.recipe.get("set", {}).get("digest", "")) for step in line]
    return compare_probings(seen[parent.id], seen[version.id], oldest, probes=probes, tuned_on=learnt)


def _probings(shop: "Workspace", version: Version, probes: "Sequence[Probe]") -> "Probings":
    from perdure.measuring.concept_answers import probe_encoder

    heads, encoder = heads_of(shop, version), encoder_of(shop, version)
    own = {probe.digest: heads[name] for probe in probes if (name := head_name(probe.digest)) in heads}
    return probe_encoder(
        encoder,
        [probe for probe in probes if probe.side in encoder.sides],
        heads=own,
        folder=features_folder(shop.folder),
        progress=lambda stage, done, total: shop.progress(f"{version.name}: {stage}", done, total),
    )

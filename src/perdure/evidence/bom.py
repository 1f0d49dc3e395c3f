"""The bill of materials of a version: CycloneDX 1.6, with its pedigree.

The version is a machine-learning model; its ancestors are the versions that it stands on, its patches what each step
changed, its parts the data sets and libraries, everything with its hash.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from perdure.content import canonical_json, digest_bytes
from perdure.evidence.facts import VersionFacts
from perdure.workspace.manifest import Manifest
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from cyclonedx.model.component import Component, Patch

_SPACE = uuid.UUID("6f9619ff-8b86-5d01-b42d-00cf4fc964ff")  # the namespace of the serial numbers, arbitrary and fixed
_HEX = set("0123456789abcdef")


def bill_of_materials(facts: VersionFacts) -> bytes:
    """The bill of materials, JSON; the same facts give the same bytes."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output.json import JsonV1Dot6

    model = _model(facts)
    parts = [*_data_sets(facts), *_libraries(facts)]
    bom = Bom(
        serial_number=uuid.uuid5(_SPACE, f"{facts.version.id} {facts.rows[-1].hash}"),
        metadata=BomMetaData(component=model, timestamp=datetime.fromisoformat(facts.rows[-1].time)),
        components=parts,
    )
    bom.register_dependency(model, parts)
    return f"{canonical_json(json.loads(JsonV1Dot6(bom).output_as_string()))}\n".encode()


def _model(facts: VersionFacts) -> "Component":
    from cyclonedx.model.component import Pedigree

    made = _component(facts, facts.version)
    below = pairwise(facts.lineage)
    made.pedigree = Pedigree(
        ancestors=[_component(facts, version) for version in reversed(facts.lineage[:-1])],
        patches=[_patch(parent, version) for parent, version in below],
        notes="ancestors: the versions that it stands on; patches: what each step changed, and the sha256 of its delta",
    )
    made.properties.update(_properties(facts))
    return made


def _component(facts: VersionFacts, version: Version) -> "Component":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=facts.source or "model",
        version=version.name,
        bom_ref=f"version:{version.id}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=version.id)],
        description="the sha256 is that of the version's manifest, which names every tensor by its own",
    )


def _patch(parent: Version, version: Version) -> "Patch":
    """What a version changed in its parent."""
    from cyclonedx.model import AttachedText
    from cyclonedx.model.component import Diff, Patch, PatchClassification

    text = canonical_json(patch_of(parent.manifest, version.manifest))
    return Patch(
        type=PatchClassification.UNOFFICIAL,
        diff=Diff(text=AttachedText(content=text, content_type="application/json")),
    )


def patch_of(parent: Manifest, child: Manifest) -> dict[str, Any]:
    """The step from one version to the next: the sha256 of its delta, and of every tensor that changed."""
    before, after = parent.tensors, child.tensors
    changed = {
        name: [before[name].hash if name in before else None, record.hash]
        for name, record in after.items()
        if name not in before or before[name].hash != record.hash
    }
    return {
        "version": digest_bytes(child.to_bytes()),
        "parent": digest_bytes(parent.to_bytes()),
        "method": child.recipe.get("editor") or child.recipe.get("kind"),
        "delta": child.solved,
        "tensors": changed,
    }


def _properties(facts: VersionFacts) -> Iterator[Any]:
    from cyclonedx.model import Property

    told = {
        "perdure:report": facts.report_digest,
        "perdure:policy": facts.policy.digest,
        "perdure:ledger-head": facts.rows[-1].hash,
        "perdure:verdict": facts.report.verdict,
        "perdure:requested-by": facts.version.requester,
        "perdure:approved-by": ", ".join(facts.approved_by) or "nobody",
    }
    return (Property(name=name, value=value) for name, value in told.items())


def _data_sets(facts: VersionFacts) -> Iterator["Component"]:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    found = dict[str, tuple[str, str]]()
    for version in facts.lineage[1:]:
        for name, digest in data_of(version.manifest):
            found.setdefault(digest, (name, version.name))
    suite = facts.report.environment.get("suite")
    if isinstance(suite, str) and _is_hash(suite):
        found.setdefault(suite, ("questions of the report", facts.version.name))
    for digest, (name, version_name) in found.items():
        yield Component(
            type=ComponentType.DATA,
            name=name,
            version=version_name,
            bom_ref=f"data:{digest}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )


def data_of(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The data sets that a version was made with: name and sha256."""
    for key, value in manifest.recipe.items():
        if isinstance(value, Mapping) and _is_hash(value.get("digest")):
            name = value.get("name")
            yield (f"{key}: {name}" if name else key), str(value["digest"])
        elif key == "moments_text" and _is_hash(value):
            yield "text of the second moments", str(value)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= _HEX


def _libraries(facts: VersionFacts) -> Iterator["Component"]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    used = {(name, found) for version in facts.lineage for name, found in version.manifest.libraries.items()}
    for name, found in sorted(used):
        known = found[:1].isdigit()
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=found if known else None,
            bom_ref=f"library:{name}:{found}",
            purl=PackageURL("pypi", name=name, version=found) if known else None,
        )

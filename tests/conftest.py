import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

import shops
import tiny as models

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch, request):
    """Statistics of tiny models never reach the user's cache; the real model is fetched there once."""
    if "real_model" not in request.keywords:
        monkeypatch.setenv("PERDURE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def tokenizer():
    return models.tokenizer()


@pytest.fixture
def tiny(tokenizer):
    """A random Llama of four layers and its tokenizer."""
    return models.llama(), tokenizer


@pytest.fixture(params=sorted(models.FAMILIES))
def family(request, tokenizer):
    """One random model of each architecture, and the tokenizer."""
    return models.FAMILIES[request.param](), tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tokenizer):
    """A from_pretrained folder of the tiny Llama."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    models.llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_suite(tmp_path_factory):
    return shops.write_suite(tmp_path_factory.mktemp("suite") / "small")


@pytest.fixture
def quick_suite(small_suite, monkeypatch):
    """The small suite in place of the built-in one."""
    monkeypatch.setattr("perdure.workspace.measurements.Suite.built_in", lambda: small_suite)


@pytest.fixture
def tiny_shop(tmp_path, tiny_folder, quick_suite):
    """A workspace of the tiny Llama."""
    from perdure import Workspace

    return Workspace.init(tmp_path / "shop", tiny_folder, actor="sato")

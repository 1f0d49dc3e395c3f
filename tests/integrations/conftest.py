"""A workspace with a measured version that nobody approved yet, a fresh copy for each test."""

import shutil

import pytest

import shops
from perdure import Workspace
from perdure.workspace import lock


@pytest.fixture(scope="session")
def _template(tmp_path_factory, tiny_folder, small_suite):
    folder = tmp_path_factory.mktemp("integrations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERDURE_CACHE", str(folder / "cache"))
        patch.setattr("perdure.workspace.measurements.Suite.built_in", lambda: small_suite)
        patch.setattr(lock, "BALLAST_BYTES", 4096)
        shop = Workspace.init(folder / "shop", tiny_folder, actor="sato")
        (shop.folder / "policy.toml").write_text(shops.LAX)
        version = shop.edit(shops.write_facts(folder / "facts.jsonl"), config=shops.QUICK, actor="kato")
        shop.measure(version, actor="kato")
    shop.archive.close()
    return folder / "shop"


@pytest.fixture
def measured_shop(_template, tmp_path):
    return Workspace.open(shutil.copytree(_template, tmp_path / "shop"))

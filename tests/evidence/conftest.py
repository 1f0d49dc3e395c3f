"""A workspace with a measured, approved and promoted version, its pack, and copies of it to hurt."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import shops
from perdure import Workspace
from perdure.evidence import export_pack
from perdure.web.report import render_report
from perdure.workspace import lock


@pytest.fixture(scope="session")
def built(tmp_path_factory, tiny_folder, small_suite):
    """v1 is approved by mori and in production."""
    folder = tmp_path_factory.mktemp("evidence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERDURE_CACHE", str(folder / "cache"))
        patch.setattr("perdure.workspace.measurements.Suite.built_in", lambda: small_suite)
        patch.setattr(lock, "BALLAST_BYTES", 4096)
        shop = Workspace.init(folder / "shop", tiny_folder, actor="sato")
        (shop.folder / "policy.toml").write_text(shops.LAX)
        version = shop.edit(shops.write_facts(folder / "facts.jsonl"), config=shops.QUICK, actor="kato")
        shop.measure(version, actor="kato")
        shop.approve(version, actor="mori", comment="it [knows](http://x) <b>Manila</b> now")
        shop.promote(version, "production", actor="mori")
        page = render_report(shop.report(version))
        export_pack(shop, version, folder / "pack", page=page, actor="sato")
    shop.archive.close()
    return SimpleNamespace(shop=folder / "shop", pack=folder / "pack", page=page)


@pytest.fixture
def shop(built, tmp_path):
    return Workspace.open(shutil.copytree(built.shop, tmp_path / "shop"))


@pytest.fixture
def pack(built, tmp_path):
    """A fresh copy of the pack's folder."""
    return Path(shutil.copytree(built.pack, tmp_path / "pack"))

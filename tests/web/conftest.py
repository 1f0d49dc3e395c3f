"""A served workspace: made once, copied for each test."""

import shutil

import pytest


@pytest.fixture(scope="session")
def bare_shop(tmp_path_factory, tiny_folder):
    """The folder of a workspace with v1, asked for by "asker" and measured; copied, never changed."""
    from browsing import commit_change, put_report

    from perdure import Workspace
    from shops import LAX

    shop = Workspace.init(tmp_path_factory.mktemp("bare") / "shop", tiny_folder, actor="sato")
    shop.set_policy(LAX, actor="sato")
    put_report(shop, commit_change(shop, requester="asker"))
    shop.archive._database.close()
    return shop.folder


@pytest.fixture(scope="session")
def peopled_shop(tmp_path_factory, bare_shop):
    """The same with an account for each role; copied, never changed."""
    from browsing import Served

    from perdure import Workspace

    folder = tmp_path_factory.mktemp("peopled") / "shop"
    shutil.copytree(bare_shop, folder)
    found = Served(Workspace.open(folder))
    found.join_everybody()
    found.services.store.close()
    found.shop.archive._database.close()
    return folder


@pytest.fixture
def empty(bare_shop, tmp_path):
    """A server on which nobody has an account."""
    from browsing import Served

    from perdure import Workspace

    shutil.copytree(bare_shop, tmp_path / "shop")
    return Served(Workspace.open(tmp_path / "shop"))


@pytest.fixture
def served(peopled_shop, tmp_path):
    """A server over a workspace of its own, with an account for each role."""
    from browsing import Served

    from perdure import Workspace

    shutil.copytree(peopled_shop, tmp_path / "shop")
    return Served(Workspace.open(tmp_path / "shop"))


@pytest.fixture(scope="session")
def calm(peopled_shop, tmp_path_factory):
    """A server whose workspace no test changes."""
    from browsing import Served

    from perdure import Workspace

    folder = tmp_path_factory.mktemp("calm") / "shop"
    shutil.copytree(peopled_shop, folder)
    return Served(Workspace.open(folder))

import importlib.metadata
import subprocess
import sys

import pytest

import perdure
from invoking import run
from perdure.errors import UnknownNameError
from perdure.registry import Registry, editors


def test_public_names_are_there_and_importing_is_light():
    for name in perdure.__all__:
        assert getattr(perdure, name) is not None
    code = "import sys, perdure; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError):
        _ = perdure.nothing


def test_it_says_which_version_it_is():
    assert perdure.__version__ == importlib.metadata.version("perdure")
    assert run("--version").output.strip() == f"perdure {perdure.__version__}"


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Known: .*memit.* Did you mean 'memit'"):
        editors.get("memitt")


def test_a_name_can_be_taken_once():
    registry = Registry("editor", "perdure.editing")
    config = editors.get("rome").config

    def first():
        """One."""

    def second():
        """Two."""

    second.__module__ = "elsewhere"
    registry.register("x", config=config, paper="p")(first)
    with pytest.raises(ValueError, match="already registered"):
        registry.register("x", config=config, paper="p")(second)

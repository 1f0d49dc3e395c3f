import gc

import pytest

import tiny


@pytest.fixture(autouse=True, scope="session")
def _old_objects_stay():
    """A Trainer collects garbage at its start; without the objects of all imports that is 40 times faster."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=sorted(tiny.FAMILIES))
def shallow(request, tokenizer, monkeypatch):
    """One random model of two blocks of each architecture, and the tokenizer."""
    monkeypatch.setattr(tiny, "DEPTH", 2)
    return tiny.FAMILIES[request.param](), tokenizer

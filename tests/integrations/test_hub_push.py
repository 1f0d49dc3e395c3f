"""Pushing to the hub, against a stand-in for its API: no network."""

import json
import shutil
from types import SimpleNamespace

import httpx
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError

from invoking import run_json, run_text
from perdure.errors import PerdureError, RefusedError, SettingError, WorkspaceError
from perdure.integrations.hub import push

UNAUTHORISED = HfHubHTTPError(
    "401 Unauthorized", response=httpx.Response(401, request=httpx.Request("POST", "https://hub.example"))
)


class Hub:
    """What of `HfApi` a push uses; keeps what was uploaded."""

    def __init__(self, folder, broken=None, *, private=True):
        self.folder, self.broken, self.private, self.calls = folder, broken, private, []

    def create_repo(self, repo, **options):
        self.calls.append(("create_repo", repo, options))

    def repo_info(self, repo, repo_type):
        return SimpleNamespace(private=self.private)

    def upload_folder(self, **options):
        if self.broken:
            raise self.broken
        self.calls.append(("upload_folder", options.pop("repo_id"), options))
        shutil.copytree(options["folder_path"], self.folder)
        return SimpleNamespace(oid="c0ffee" + "0" * 34, commit_url="https://hub.example/commit")

    def create_tag(self, repo, **options):
        self.calls.append(("create_tag", repo, options))


def test_a_version_is_pushed_whole_with_its_card(measured_shop, tmp_path):
    from transformers import AutoModelForCausalLM

    version = measured_shop.version("v1")
    hub = Hub(tmp_path / "remote")
    pushed = push(measured_shop, version, "acme/tiny", actor="sato", api=hub)
    assert [call[0] for call in hub.calls] == ["create_repo", "upload_folder", "create_tag"]
    assert hub.calls[0][2]["private"] is True
    assert hub.calls[1][2]["delete_patterns"] == "*"
    assert hub.calls[2][2] == {
        "tag": f"v1-{version.id[:12]}", "revision": pushed.commit, "exist_ok": True, "repo_type": "model",
    }  # fmt: skip
    assert ModelCard.load(tmp_path / "remote/README.md").data.to_dict()["perdure"]["version"] == version.id
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "remote").state_dict()
    for name, tensor in measured_shop.archive.tensors(version).items():
        assert (loaded[name] == tensor).all()
    last = measured_shop.archive.log()[-1]
    assert (last.action, last.actor) == ("push", "sato")
    assert (last.details["repo"], last.details["commit"]) == ("acme/tiny", pushed.commit)


def test_only_what_was_approved_is_made_public(measured_shop, tmp_path):
    version = measured_shop.version("v1")
    with pytest.raises(RefusedError, match="not made public"):
        push(measured_shop, version, "acme/tiny", actor="sato", public=True, api=Hub(tmp_path / "a"))
    with pytest.raises(RefusedError, match="is public"):
        push(measured_shop, version, "acme/tiny", actor="sato", api=Hub(tmp_path / "a", private=False))
    assert not (tmp_path / "a").exists()
    measured_shop.approve(version, actor="mori")
    hub = Hub(tmp_path / "b")
    push(measured_shop, version, "acme/tiny", actor="sato", public=True, api=hub)
    assert hub.calls[0][2]["private"] is False


def test_what_was_rejected_is_not_pushed(measured_shop, tmp_path):
    measured_shop.reject("v1", actor="mori", reason="wrong")
    with pytest.raises(RefusedError, match="rejected"):
        push(measured_shop, measured_shop.version("v1"), "acme/tiny", actor="sato", api=Hub(tmp_path / "a"))


@pytest.mark.parametrize("repo", ["tiny", "acme/tiny/x", "acme/../x", "https://hub/acme/tiny", "", "acme/a b"])
def test_a_name_that_cannot_be_is_refused(measured_shop, tmp_path, repo):
    with pytest.raises(SettingError):
        push(measured_shop, measured_shop.version("v1"), repo, actor="sato", api=Hub(tmp_path / "a"))


@pytest.mark.parametrize("error", [UNAUTHORISED, ConnectionError("no route"), OSError("full")])
def test_what_the_hub_refuses_is_told(measured_shop, tmp_path, error):
    rows = len(measured_shop.archive.log())
    with pytest.raises(PerdureError, match="the hub refused acme/tiny"):
        push(measured_shop, measured_shop.version("v1"), "acme/tiny", actor="sato", api=Hub(tmp_path / "a", error))
    assert len(measured_shop.archive.log()) == rows


def test_what_was_never_measured_is_not_pushed(measured_shop, tmp_path):
    with pytest.raises(WorkspaceError, match="run perdure measure v0"):
        push(measured_shop, measured_shop.version("v0"), "acme/tiny", actor="sato", api=Hub(tmp_path / "a"))


def test_the_command(measured_shop, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: Hub(tmp_path / "remote"))
    found = run_json("push", "v1", "acme/tiny", "-w", measured_shop.folder, "--as", "sato")
    assert found["repo"] == "acme/tiny" and found["version"] == "v1"
    assert json.loads((tmp_path / "remote/config.json").read_text())["model_type"] == "llama"
    assert "OWNER/NAME" in run_text("push", "v1", "tiny", "-w", measured_shop.folder, error=SettingError)

"""perdure tune under torchrun: two processes, one version."""

import json
import os
import subprocess
import sys

import tiny
from perdure.workspace import Workspace


def test_two_processes_make_one_version(tmp_path):
    Workspace.init(tmp_path / "shop", tiny.llama(), tokenizer=tiny.tokenizer(), actor="kato")
    words = ["river", "stone", "cloud", "bread", "lamp", "winter", "garden", "paper", "silver", "window"]
    rows = [{"prompt": f"{word}:", "completion": word.upper()} for word in words]
    (tmp_path / "upper.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "perdure"]
    quick = ["--set", "epochs=1", "--set", "batch_size=4", "--set", "save_every=1", "--regularize", "distillation"]
    shop = ["--workspace", str(tmp_path / "shop"), "--as", "kato", "--json"]
    done = subprocess.run(
        [*start, "tune", str(tmp_path / "upper.jsonl"), *quick, *shop],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [made] = json.loads(done.stdout)
    opened = Workspace.open(tmp_path / "shop")
    assert [version.name for version in opened.archive.versions()] == ["v0", "v1"]
    assert opened.version("v1").id == made["id"]
    assert not list((opened.folder / "tuning" / "targets").glob("*.part"))
    opened.archive.verify()

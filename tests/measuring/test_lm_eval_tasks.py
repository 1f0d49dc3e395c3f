import json
import random
import sys
import types

import pytest

from perdure.errors import SettingError, UnknownNameError
from perdure.measuring import measure_harness


@pytest.fixture
def stub(monkeypatch):
    """A harness with one task of three items and two filters."""
    seen = {}

    class TaskManager:
        def __init__(self, include_defaults=True, include_path=None):
            seen["manager"] = (include_defaults, include_path)
            self.all_tasks = ["capitals", "sums"]

    class HFLM:
        def __init__(self, pretrained, tokenizer, batch_size):
            seen["model"] = pretrained

    def simple_evaluate(model, tasks, task_manager, limit, log_samples, bootstrap_iters):
        random.seed(1234)
        seen["call"] = (tasks, limit, log_samples)
        samples = [
            {"doc_id": place, "filter": way, "exact_match": float(place > 0), "f1": 0.5, "resps": []}
            for way in ("strict", "flexible")
            for place in range(3)
        ]
        return {
            "samples": {"capitals": samples},
            "higher_is_better": {"capitals": {"exact_match": True, "f1": True}},
            "configs": {"capitals": {"output_type": "generate_until"}},
        }

    modules = {
        "lm_eval": {},
        "lm_eval.evaluator": {"simple_evaluate": simple_evaluate},
        "lm_eval.models": {},
        "lm_eval.models.huggingface": {"HFLM": HFLM},
        "lm_eval.tasks": {"TaskManager": TaskManager},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["lm_eval"].evaluator = sys.modules["lm_eval.evaluator"]
    return seen


def test_items_are_right_or_wrong_per_metric_and_filter(tiny, stub, tmp_path):
    random.seed(7)
    expected = random.random()
    random.seed(7)
    found = measure_harness(*tiny, ["capitals"], tmp_path, limit=3)
    assert [(hits.task, hits.metric, hits.filter) for hits in found] == [
        ("capitals", "exact_match", "strict"),
        ("capitals", "exact_match", "flexible"),
    ]
    assert found[0].hits == {"0": False, "1": True, "2": True} and found[0].how == "free generation"
    assert stub["manager"] == (False, str(tmp_path)) and stub["call"] == (["capitals"], 3, True)
    assert stub["model"] is tiny[0]
    assert random.random() == expected


def test_an_unknown_task_is_named_with_its_neighbours(tiny, stub):
    with pytest.raises(UnknownNameError, match="Did you mean 'capitals'"):
        measure_harness(*tiny, ["capital"])
    assert stub["manager"] == (True, None)


def test_no_task_is_refused(tiny):
    with pytest.raises(SettingError, match="no lm-eval task"):
        measure_harness(*tiny, [])


def test_without_the_harness_the_message_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(SettingError, match=r"pip install 'perdure\[lm-eval\]'"):
        measure_harness(*tiny, ["capitals"])


def test_the_real_harness_runs_a_local_task(tiny, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed; its stub is tested above")
    rows = [{"q": f"Q{place}:", "choices": ["a", "b"], "gold": place % 2} for place in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own_task.yaml").write_text(
        "task: own_task\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: "
        f"{tmp_path / 'rows.jsonl'}\ntest_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: gold\n'
        "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
    )
    found = measure_harness(*tiny, ["own_task"], tmp_path)
    assert [(hits.metric, len(hits.hits), hits.how) for hits in found] == [("acc", 4, "log-likelihood")]

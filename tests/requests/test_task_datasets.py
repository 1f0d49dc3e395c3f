"""Data sets of Hugging Face: saved folders, ids of the hub (without a network), and what is refused."""

import json
import sys

import pytest

from perdure.errors import RequestError
from perdure.requests.tasks import read_task

datasets = pytest.importorskip("datasets")

ROWS = {"text": [f"text {at}" for at in range(20)], "label": [at % 2 for at in range(20)]}


def labelled(rows=ROWS):
    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


def test_a_saved_data_set_with_names_for_its_classes(tmp_path):
    labelled().shuffle(seed=0).select(range(10)).save_to_disk(tmp_path / "reviews")
    task = read_task(tmp_path / "reviews")
    assert (task.name, len(task.train), len(task.validation)) == ("reviews", 9, 1)
    for row in (*task.train, *task.validation):
        assert row.answer == ("bad", "good")[int(row.prompt[0].content.split()[1]) % 2]
    assert task.train[0].source.startswith("reviews train[")


def test_saved_splits(tmp_path):
    splits = {"train": labelled(), "test": labelled({"text": ["new"], "label": [1]}), "unsupervised": labelled()}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "reviews")
    task = read_task(tmp_path / "reviews", validation=0)
    assert (len(task.train), task.validation, task.test[0].answer) == (20, (), "good")
    assert task.notes[0] == "files or splits not read: 1 (unsupervised)"


def test_conversations_in_a_data_set(tmp_path):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    datasets.Dataset.from_list([{"messages": messages}]).save_to_disk(tmp_path / "chat")
    assert read_task(tmp_path / "chat", validation=0).train[0].answer == "Ho"


def test_rows_without_a_class_are_bad_rows(tmp_path):
    labelled({"text": ["a", "b"], "label": [1, -1]}).save_to_disk(tmp_path / "reviews")
    with pytest.raises(RequestError, match=r"reviews train\[1\]: label -1: must be text"):
        read_task(tmp_path / "reviews")


def test_images_in_a_data_set_are_not_opened(tmp_path):
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.Value("string"), "image": datasets.Image()}
    )
    row = {
        "question": "What?",
        "answer": "A cat",
        "image": {"path": "http://nowhere.invalid/a.png", "bytes": b"no image"},
    }
    datasets.Dataset.from_list([row], features=features).save_to_disk(tmp_path / "pictures")
    with pytest.raises(RequestError, match="must be the name of an image file, got an object"):
        read_task(tmp_path / "pictures")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["../other.arrow", "/etc/passwd", "..", "", "file:x", 3, "a\\b"])
def test_a_saved_data_set_that_names_files_outside(tmp_path, name):
    labelled().save_to_disk(tmp_path / "reviews")
    edit(tmp_path / "reviews/state.json", _data_files=[{"filename": name}])
    with pytest.raises(RequestError, match="no file or folder inside it"):
        read_task(tmp_path / "reviews")


@pytest.mark.parametrize("split", ["../reviews", "/tmp", ".."])
def test_saved_splits_outside(tmp_path, split):
    datasets.DatasetDict({"train": labelled()}).save_to_disk(tmp_path / "reviews")
    edit(tmp_path / "reviews/dataset_dict.json", splits=[split])
    with pytest.raises(RequestError, match="no file or folder inside it"):
        read_task(tmp_path / "reviews")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", "{"),
        ("state.json", "[]"),
        ("state.json", '{"_data_files": 3}'),
        ("state.json", '{"_data_files": []}'),
        ("dataset_info.json", "nothing"),
        ("data-00000-of-00001.arrow", "nothing"),
    ],
)
def test_a_damaged_saved_data_set(tmp_path, file, content):
    labelled().save_to_disk(tmp_path / "reviews")
    (tmp_path / "reviews" / file).write_text(content)
    with pytest.raises(RequestError, match="damaged data set"):
        read_task(tmp_path / "reviews")


def test_a_data_set_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("perdure.requests.task_datasets.ROW_LIMIT", 10)
    labelled().save_to_disk(tmp_path / "reviews")
    with pytest.raises(RequestError, match="has 20 rows and"):
        read_task(tmp_path / "reviews")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one data set, and what it was asked for."""
    monkeypatch.chdir(tmp_path)
    asked = []

    def load(name, **settings):
        asked.append((name, settings))
        if name != "someone/reviews.v2":
            raise FileNotFoundError(f"Dataset '{name}' doesn't exist on the Hub or cannot be accessed.")
        return datasets.DatasetDict({"default": labelled()})

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_a_data_set_of_the_hub_runs_no_code(hub):
    task = read_task("someone/reviews.v2")
    assert (task.name, len(task.train), len(task.validation)) == ("reviews.v2", 18, 2)
    assert hub == [("someone/reviews.v2", {"trust_remote_code": False})]


def test_what_is_neither_here_nor_on_the_hub(hub):
    with pytest.raises(RequestError, match=r"is no file or folder here, .* doesn't exist on the Hub"):
        read_task("someone/none")


def test_a_path_that_exists_comes_before_the_hub(hub, tmp_path):
    (tmp_path / "someone/reviews.v2").mkdir(parents=True)
    with pytest.raises(RequestError, match="no part called train"):
        read_task("someone/reviews.v2")
    (tmp_path / "someone/dangling").symlink_to("nowhere")
    with pytest.raises(RequestError, match=r"cannot be read|unknown extension"):
        read_task("someone/dangling")
    assert hub == []


@pytest.mark.parametrize("name", ["someone/none.jsonl", "a/b/c", "../b", "reviews", "https://x/y", "-a/b"])
def test_what_cannot_be_an_id_is_not_asked_for(hub, name):
    with pytest.raises(RequestError):
        read_task(name)
    assert hub == []


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    labelled().save_to_disk(tmp_path / "reviews")
    monkeypatch.setitem(sys.modules, "datasets", None)
    for path in (tmp_path / "reviews", "someone/reviews"):
        with pytest.raises(RequestError, match=r"pip install 'perdure\[datasets\]'"):
            read_task(path)

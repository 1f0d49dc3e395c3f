"""Concept sets from folders, arrays, texts and data sets; everything wrong told at once."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from perdure.errors import RequestError, SettingError
from perdure.models.encoder_inputs import as_picture
from perdure.requests import concept_items
from perdure.requests.concepts import read_probe, read_unlabelled

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


def draw(path, colour, mark):
    """A picture of one colour with one mark, so that no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (12, 10), colour)
    picture.putpixel((mark % 12, mark // 12), (9, 9, 9))
    picture.save(path)
    return path


def draw_classes(folder, count, first=0, colours=COLOURS):
    for name, colour in colours.items():
        for number in range(first, first + count):
            draw(folder / name / f"{number}.png", colour, number)
    return folder


def pixels(count, first=0, channels=3):
    shape = (count, 8, 9, channels) if channels else (count, 8, 9)
    return np.random.default_rng(first).integers(0, 256, shape, dtype=np.uint8)


def write_rows(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def texts(count, first=0, classes=("a", "b")):
    return [
        {"text": f"{label} number {number}", "label": label}
        for number in range(first, first + count)
        for label in classes
    ]


def told(error):
    return [str(problem) for problem in error.value.problems]


# Folders of images


def test_a_folder_of_classes_is_split_in_the_same_share_each(tmp_path):
    probe = read_probe(draw_classes(tmp_path / "signs", 10))
    assert (probe.name, probe.side, probe.classes) == ("signs", "image", ("blue", "green", "red"))
    assert np.bincount(probe.train.labels_N).tolist() == [8, 8, 8]
    assert np.bincount(probe.test.labels_N).tolist() == [2, 2, 2]
    assert probe.train.labels_N.dtype == np.int64 and len(probe.train) == 24
    for part in (probe.train, probe.test):
        for item, place, label in zip(part.items, part.items.places, part.labels_N, strict=True):
            assert item.mode == "RGB" and item.size == (12, 10)
            assert place.startswith(probe.classes[label]) and item.getpixel((11, 9)) == COLOURS[probe.classes[label]]


def test_a_split_stays_and_another_seed_gives_another(tmp_path):
    folder = draw_classes(tmp_path / "signs", 10)
    first, again, other = read_probe(folder), read_probe(folder, name="x"), read_probe(folder, seed=1)
    assert first.digest == again.digest and first.test.items.places == again.test.items.places
    assert first.test.items.places != other.test.items.places and first.digest != other.digest
    draw(folder / "red" / "more.png", (1, 1, 1), 0)
    moved = set(first.test.items.places) ^ set(read_probe(folder).test.items.places)
    assert len(moved) <= 2


def test_parts_in_folders_are_kept(tmp_path):
    draw_classes(tmp_path / "train", 3)
    draw_classes(tmp_path / "val", 2, first=50)
    probe = read_probe(tmp_path)
    assert len(probe.train) == 9 and len(probe.test) == 6
    assert all(place.startswith("val/") for place in probe.test.items.places)


def test_parts_under_other_names_are_read_and_what_stands_beside_them_is_noted(tmp_path):
    draw_classes(tmp_path / "Training", 3)
    draw_classes(tmp_path / "Testing", 2, first=50)
    draw_classes(tmp_path / "holdout", 1, first=70)
    probe = read_probe(tmp_path)
    assert len(probe.train) == 9 and len(probe.test) == 6
    assert probe.notes == ("files or folders not read: 1 (holdout)",)
    draw_classes(tmp_path / "test", 2, first=80)
    with pytest.raises(RequestError, match="has Testing and test for one part; keep one"):
        read_probe(tmp_path)


def test_trains_may_be_a_class(tmp_path):
    colours = dict(zip(("bus", "train"), COLOURS.values(), strict=False))
    assert read_probe(draw_classes(tmp_path / "vehicles", 5, colours=colours)).classes == ("bus", "train")


def test_the_same_pixels_are_one_content_whatever_the_format(tmp_path):
    folder = draw_classes(tmp_path / "signs", 4)
    Image.open(folder / "red" / "0.png").save(folder / "red" / "again.bmp")
    probe = read_probe(folder, test_share=0.5)
    digests = [*probe.train.items.digests, *probe.test.items.digests]
    assert len(digests) == 13 and len(set(digests)) == 12
    assert not set(probe.train.items.digests) & set(probe.test.items.digests)
    assert any("several times: 1" in note for note in probe.notes)


def test_everything_wrong_in_a_folder_is_told_at_once(tmp_path):
    draw_classes(tmp_path / "train", 3)
    draw_classes(tmp_path / "test", 2, first=50, colours={"red": COLOURS["red"], "green": COLOURS["green"]})
    draw(tmp_path / "test" / "pink" / "0.png", (9, 0, 9), 0)
    draw(tmp_path / "train" / "lonely" / "0.png", (1, 2, 3), 0)
    draw(tmp_path / "test" / "lonely" / "0.png", (1, 2, 3), 1)
    draw(tmp_path / "test" / "green" / "same.png", COLOURS["green"], 0)
    (tmp_path / "train" / "red" / "torn.png").write_bytes((tmp_path / "train" / "red" / "0.png").read_bytes()[:60])
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(RequestError, match="skip_bad=True") as error:
        read_probe(tmp_path)
    found = "\n".join(told(error))
    for wanted in (
        "train/red/torn.png: cannot be read as a picture: ",
        "train/empty: holds no images",
        "train/green/0.png: is also in test (test/green/same.png)",
        "'blue': is in train (3 rows) and not in test",
        "'pink': is in test (1 rows) and not in train",
        "'lonely': has 1 rows in train and 1 in test; at least 2 and 1 are needed",
    ):
        assert wanted in found
    assert len(told(error)) == 6
    probe = read_probe(tmp_path, skip_bad=True)
    assert probe.classes == ("green", "red")
    assert np.bincount(probe.train.labels_N).tolist() == [2, 3]
    assert any("left out: 6" in note for note in probe.notes)


def test_other_files_are_noted_and_hidden_ones_passed_over(tmp_path):
    folder = draw_classes(tmp_path / "signs", 4)
    (folder / "README.md").write_text("x")
    (folder / "red" / ".DS_Store").write_bytes(b"x")
    draw(folder / "loose.png", (0, 0, 0), 0)
    assert read_probe(folder).notes == ("files not read: 2 (README.md, loose.png)",)


def test_pictures_stand_upright_as_their_camera_noted(tmp_path):
    folder = draw_classes(tmp_path / "signs", 4)
    turned = Image.new("RGB", (30, 10))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "red" / "turned.jpg", exif=exif)
    probe = read_probe(folder)
    sizes = {item.size for part in (probe.train, probe.test) for item in part.items}
    assert sizes == {(12, 10), (10, 30)}


def test_sixteen_bits_of_grey_keep_their_shades_and_other_numbers_are_refused(tmp_path):
    folder = draw_classes(tmp_path / "signs", 4)
    shades = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(shades).save(folder / "red" / "deep.png")
    probe = read_probe(folder)
    opened = [item for part in (probe.train, probe.test) for item in part.items if item.size == (16, 16)]
    assert np.asarray(opened[0])[..., 0].ravel().tolist() == list(range(256))
    for kind, said in ((np.float32, "decimal numbers"), (np.int32, "whole numbers of 32 bits")):
        Image.fromarray(shades.astype(kind)).save(folder / "red" / "odd.tiff")
        with pytest.raises(RequestError, match=f"red/odd.tiff: cannot be read as a picture: it holds {said}"):
            read_probe(folder)
        with pytest.raises(RequestError, match=said):
            as_picture(Image.fromarray(shades.astype(kind)))


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    folder = draw_classes(tmp_path / "signs", 4)
    monkeypatch.setattr("perdure.pictures.PIXEL_LIMIT", 12 * 10)
    Image.new("1", (13, 10)).save(folder / "red" / "vast.png")
    with pytest.raises(RequestError, match=r"red/vast.png: .* it has 13 by 10 pixels; at most 120 in all"):
        read_probe(folder)


@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError, IndexError, MemoryError])
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    folder = draw_classes(tmp_path / "signs", 4)

    def broken(_picture):
        raise error("inside")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
    with pytest.raises(RequestError, match=r"red/0.png: cannot be read as a picture: inside"):
        read_probe(folder)


def test_progress_is_told(tmp_path):
    seen = []
    read_probe(draw_classes(tmp_path / "signs", 4), progress=lambda *told: seen.append(told))
    assert seen[0] == ("reading pictures", 0, 12) and seen[-1] == ("reading pictures", 12, 12)


def test_a_folder_without_classes_says_what_is_needed(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RequestError, match="no sub-folder with images for each class"):
        read_probe(tmp_path)


def test_without_pillow_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(concept_items.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(RequestError, match=r"perdure\[images\]"):
        read_probe(draw_classes(tmp_path / "signs", 4))


# Arrays


def test_arrays_with_both_parts_and_names(tmp_path):
    y = np.arange(12) % 3
    np.savez(
        tmp_path / "set.npz", x_train=pixels(12), y_train=y, x_test=pixels(6, 1), y_test=y[:6], classes=["x", "y", "z"]
    )
    probe = read_probe(tmp_path / "set.npz")
    assert (probe.name, probe.classes, len(probe.train), len(probe.test)) == ("set", ("x", "y", "z"), 12, 6)
    assert np.array_equal(probe.train.items[3], pixels(12)[3]) and probe.train.labels_N.tolist() == y.tolist()
    assert probe.test.items.places[5] == "set.npz x_test[5]"


@pytest.mark.parametrize(
    ("arrays", "shape"),
    [
        (dict(x=pixels(12), y=np.arange(12) % 2), (8, 9, 3)),
        (dict(X=pixels(12), labels=(np.arange(12) % 2)[:, None]), (8, 9, 3)),
        (dict(images=pixels(12, channels=0), label=np.array(["1", "0"] * 6)), (8, 9)),
        (dict(train_images=pixels(12).transpose(0, 3, 1, 2), train_labels=np.arange(12) % 2), (8, 9, 3)),
    ],
)
def test_arrays_under_other_names(tmp_path, arrays, shape):
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    probe = read_probe(tmp_path / "set.npz")
    assert probe.classes == ("0", "1") and len(probe.train) == 10 and len(probe.test) == 2
    assert probe.train.items[0].shape == shape and probe.train.items[0].dtype == np.uint8


def test_numbers_as_classes_are_sorted_by_size(tmp_path):
    np.savez(tmp_path / "set.npz", x=pixels(40), y=np.repeat([10, 9, 2, 1], 10))
    assert read_probe(tmp_path / "set.npz").classes == ("1", "2", "9", "10")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (dict(x=pixels(4)), "x_train, y_train, x_test and y_test, or x and y are needed"),
        (dict(x=pixels(4) / 255, y=[0, 1, 0, 1]), "is float64 [4, 8, 9, 3]; images are uint8"),
        (dict(x=pixels(4), y=[0, 1, 0]), "x has 4 rows and y has 3"),
        (dict(x=pixels(4), y=[0.5, 1, 0, 1]), "labels are whole numbers or texts"),
        (dict(x=pixels(4), y=np.array([0, {}], dtype=object)), "Objects (pickles) are refused"),
        (dict(x=pixels(4), y=np.array(["a", " ", "b", "b"])), "the label is blank"),
        (dict(x=pixels(4), y=[0, 1, 2, -1], classes=["a", "b"]), "label 2 has no name; there are 2 names, from 0"),
    ],
)
def test_arrays_that_cannot_be_used_are_explained(tmp_path, arrays, said):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(RequestError) as error:
        read_probe(tmp_path / "set.npz")
    assert said in str(error.value)


def test_arrays_that_are_broken_inside_are_explained(tmp_path):
    np.savez(tmp_path / "single.npz", x=pixels(4), y=np.array(3))
    with pytest.raises(RequestError, match=r"y: is int64 \[\]; labels are whole numbers or texts"):
        read_probe(tmp_path / "single.npz")
    headers = (b"{'descr':(((((((", b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"9" * 30 + b",)}")
    for header in headers:
        with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(RequestError, match="cannot be read as arrays"):
            read_probe(tmp_path / "set.npz")
    np.savez(tmp_path / "locked.npz", x=pixels(4))
    data = bytearray((tmp_path / "locked.npz").read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1  # says that it is encrypted
    (tmp_path / "locked.npz").write_bytes(data)
    with pytest.raises(RequestError, match="cannot be read as arrays"):
        read_probe(tmp_path / "locked.npz")


def test_labels_that_no_report_can_show_are_refused(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [*texts(5), {"text": "x", "label": "1" * 5000}])
    with pytest.raises(RequestError, match="the label has 5000 characters; at most 200"):
        read_probe(path)
    path = write_rows(tmp_path / "b.jsonl", [*texts(5), {"text": "x", "label": "\ud83d"}])
    with pytest.raises(RequestError, match="the label holds half of a surrogate pair"):
        read_probe(path)
    folder = draw_classes(tmp_path / "signs", 4)
    (folder / "red").rename(os.fsdecode(os.fsencode(folder) + b"/\xff"))
    with pytest.raises(RequestError, match="the label holds half of a surrogate pair"):
        read_probe(folder)


def test_what_is_no_archive_or_far_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "set.npz").write_bytes(b"PK no")
    with pytest.raises(RequestError, match="cannot be read as arrays"):
        read_probe(tmp_path / "set.npz")
    np.savez_compressed(tmp_path / "big.npz", x=np.zeros((9, 99, 99), np.uint8), y=np.zeros(9, int))
    monkeypatch.setattr("perdure.requests.concept_arrays.ARRAY_LIMIT", 1000)
    with pytest.raises(RequestError, match="at most 1000 are allowed"):
        read_probe(tmp_path / "big.npz")


# Texts


@pytest.mark.parametrize("kind", ["jsonl", "json", "data", "csv"])
def test_texts_in_every_format_are_the_same_set(tmp_path, kind):
    rows = texts(5)
    path = tmp_path / f"faq.{'json' if kind == 'data' else kind}"
    if kind == "jsonl":
        write_rows(path, rows)
    elif kind == "csv":
        path.write_text("Text,Category\n" + "\n".join(f'"{row["text"]}",{row["label"]}' for row in rows))
    else:
        path.write_text(json.dumps({"data": rows} if kind == "data" else rows))
    probe = read_probe(path)
    assert (probe.name, probe.side, probe.classes) == ("faq", "text", ("a", "b"))
    expected = read_probe(write_rows(tmp_path / "expected.jsonl", rows))
    assert probe.digest == expected.digest
    assert all(text.startswith(probe.classes[label]) for text, label in zip(
        probe.train.items, probe.train.labels_N, strict=True
    ))  # fmt: skip


def test_parts_in_files_and_a_test_file_of_its_own_are_the_same(tmp_path):
    write_rows(tmp_path / "train.jsonl", texts(4))
    write_rows(tmp_path / "test.jsonl", texts(2, first=4))
    whole = read_probe(tmp_path)
    joined = read_probe(tmp_path / "train.jsonl", test=tmp_path / "test.jsonl", name="faq")
    assert len(whole.train) == 8 and len(whole.test) == 4
    assert whole.digest == joined.digest and joined.name == "faq"
    assert whole.test.items.places[0] == "test.jsonl:1"
    with pytest.raises(RequestError, match="has parts of its own"):
        read_probe(tmp_path, test=tmp_path / "test.jsonl")


def test_an_object_names_its_parts(tmp_path):
    path = tmp_path / "faq.json"
    path.write_text(json.dumps({"train": texts(4), "test": texts(2, first=4), "valid": texts(1, first=9)}))
    probe = read_probe(path)
    assert len(probe.train) == 8 and len(probe.test) == 4
    assert probe.test.items.places[0].startswith("faq.json test")
    path.write_text(json.dumps({"train": texts(4), "training": texts(2)}))
    with pytest.raises(RequestError, match="has train and training for one part"):
        read_probe(path)


def test_bad_rows_of_a_text_file_are_told_at_once(tmp_path):
    rows = [
        *texts(3), {"text": " ", "label": "a"}, {"label": "a"}, {"text": "x"}, {"text": "y", "label": None},
        {"text": "z", "label": 1.5}, "plain", {"text": "\ud800", "label": "a"},
    ]  # fmt: skip
    path = write_rows(tmp_path / "faq.jsonl", rows)
    with pytest.raises(RequestError) as error:
        read_probe(path)
    found = told(error)
    assert [entry.split(":")[1] for entry in found] == ["7", "8", "9", "10", "11", "12", "13"]
    for wanted in ("is blank", "has no text; it has label", "has no label; it has text", "must be the name of a class"):
        assert any(wanted in entry for entry in found)
    assert len(read_probe(path, skip_bad=True).train) == 4


def test_labels_may_be_numbers(tmp_path):
    rows = [{"sentence": f"{number}", "label": number % 2} for number in range(8)]
    assert read_probe(write_rows(tmp_path / "faq.jsonl", rows)).classes == ("0", "1")


def test_the_same_text_with_two_labels_stays_in_train_and_is_noted(tmp_path):
    rows = [*texts(4), {"text": "unsure", "label": "a"}, {"text": "unsure", "label": "b"}]
    for seed in range(8):
        probe = read_probe(write_rows(tmp_path / "faq.jsonl", rows), seed=seed, test_share=0.5)
        assert "unsure" not in probe.test.items[:]
        assert probe.notes == ("the same item with another label: 1 (faq.jsonl:10)",)


def test_too_few_rows_or_classes_are_refused(tmp_path):
    path = write_rows(tmp_path / "faq.jsonl", [*texts(3), {"text": "one", "label": "c"}])
    with pytest.raises(RequestError, match="'c': has 1 rows in train and 0 in test"):
        read_probe(path)
    assert read_probe(path, skip_bad=True).classes == ("a", "b")
    path = write_rows(tmp_path / "one.jsonl", texts(5, classes=("a",)))
    for skip in (False, True):
        with pytest.raises(RequestError, match="1 classes can be used; a probe needs at least 2"):
            read_probe(path, skip_bad=skip)
    with pytest.raises(RequestError, match="no rows"):
        read_probe(write_rows(tmp_path / "none.jsonl", []))


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_a_share_that_leaves_nothing_is_refused(tmp_path, share):
    with pytest.raises(SettingError, match="test_share"):
        read_probe(tmp_path, test_share=share)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("faq.csv", "a,b\n1,2", "the header has a, b; it lacks text and label"),
        ("faq.txt", "hello", "plain text without labels"),
        ("faq.pkl", "x", "can run code"),
        ("faq.xlsx", "x", "unknown extension"),
        ("missing.csv", None, "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_explained(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RequestError) as error:
        read_probe(tmp_path / name)
    assert said in str(error.value)


def test_images_and_texts_make_no_set_together(tmp_path):
    np.savez(tmp_path / "set.npz", x=pixels(8), y=np.arange(8) % 2)
    with pytest.raises(RequestError, match="holds texts, and train holds images"):
        read_probe(tmp_path / "set.npz", test=write_rows(tmp_path / "test.jsonl", texts(3)))


# Data sets


def test_saved_data_sets_of_texts_and_of_images(tmp_path):
    datasets = pytest.importorskip("datasets")
    named = datasets.ClassLabel(names=["no", "yes"])
    rows = dict(text=[f"row {number}" for number in range(12)], label=[0, 1] * 6)
    features = datasets.Features(text=datasets.Value("string"), label=named)
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "texts")
    probe = read_probe(tmp_path / "texts")
    assert (probe.classes, len(probe.train), len(probe.test)) == (("no", "yes"), 10, 2)
    pictures = []
    for number in range(12):
        stream = io.BytesIO()
        Image.fromarray(pixels(1, number)[0]).save(stream, "PNG")
        pictures.append({"bytes": stream.getvalue(), "path": None})
    features = datasets.Features(image=datasets.Image(), label=named)
    parts = {
        part: datasets.Dataset.from_dict(dict(image=pictures[chosen], label=rows["label"][chosen]), features=features)
        for part, chosen in (("train", slice(0, 8)), ("validation", slice(8, 12)))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "images")
    probe = read_probe(tmp_path / "images")
    assert (probe.side, probe.classes, len(probe.train), len(probe.test)) == ("image", ("no", "yes"), 8, 4)
    assert np.array_equal(np.asarray(probe.test.items[0]), pixels(1, 8)[0])


def test_images_outside_a_data_set_are_not_opened(tmp_path):
    datasets = pytest.importorskip("datasets")
    path = draw(tmp_path / "a.png", (1, 2, 3), 0)
    stored = dict(bytes=datasets.Value("binary"), path=datasets.Value("string"))
    features = datasets.Features(image=stored, label=datasets.Value("string"))
    rows = dict(image=[{"bytes": None, "path": str(path)}] * 4, label=["a", "b"] * 2)
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "images")
    with pytest.raises(RequestError, match="has no image stored in the data set itself"):
        read_probe(tmp_path / "images")


# Parts of a set


def test_rows_are_selected_in_the_order_given(tmp_path):
    probe = read_probe(write_rows(tmp_path / "faq.jsonl", texts(5)))
    some = probe.train.select([3, 0])
    assert some.items[:] == [probe.train.items[3], probe.train.items[0]]
    assert some.labels_N.tolist() == probe.train.labels_N[[3, 0]].tolist()
    assert (
        some.digest != probe.train.digest and probe.train.select(range(len(probe.train))).digest == probe.train.digest
    )


def test_a_digest_depends_on_items_labels_and_classes_alone(tmp_path):
    first = read_probe(write_rows(tmp_path / "a.jsonl", texts(5)))
    assert read_probe(write_rows(tmp_path / "b.jsonl", texts(5)), name="other").digest == first.digest
    assert read_probe(write_rows(tmp_path / "c.jsonl", texts(5, classes=("a", "c")))).digest != first.digest
    swapped = [row | {"label": "b" if row["label"] == "a" else "a"} for row in texts(5)]
    assert read_probe(write_rows(tmp_path / "d.jsonl", swapped)).digest != first.digest


# Unlabelled


def test_unlabelled_texts_are_counted(tmp_path):
    (tmp_path / "asked.csv").write_text("question,count\nhow,3\nwhy,1\nhow,2.5\n")
    found = read_unlabelled(tmp_path / "asked.csv")
    assert (found.name, found.side, len(found)) == ("asked", "text", 2)
    assert found.items[:] == ["how", "why"] and found.weights_N.tolist() == [5.5, 1.0]
    assert found.notes == ("the same item several times, counted together: 1",)
    (tmp_path / "plain.txt").write_text("how\n\nwhy\n")
    plain = read_unlabelled(tmp_path / "plain.txt")
    assert plain.items[:] == ["how", "why"] and plain.weights_N.tolist() == [1.0, 1.0]
    assert plain.digest != found.digest
    rows = [{"text": "how", "weight": 2}, {"text": "why"}]
    assert read_unlabelled(write_rows(tmp_path / "rows.jsonl", rows)).weights_N.tolist() == [2.0, 1.0]


def test_unlabelled_images_from_a_folder_and_arrays(tmp_path):
    draw_classes(tmp_path / "shelf" / "deep", 2)
    draw(tmp_path / "shelf" / "loose.png", (7, 7, 7), 0)
    found = read_unlabelled(tmp_path / "shelf")
    assert (found.side, len(found)) == ("image", 7) and "deep/red/1.png" in found.items.places
    np.savez(tmp_path / "set.npz", x=pixels(3), count=[4, 1, 2])
    assert read_unlabelled(tmp_path / "set.npz").weights_N.tolist() == [4.0, 1.0, 2.0]
    np.savez(tmp_path / "both.npz", x_train=pixels(3), y_train=[0, 1, 0], x_test=pixels(2, 1))
    assert len(read_unlabelled(tmp_path / "both.npz")) == 5


def test_unlabelled_rows_that_cannot_be_used_are_told_at_once(tmp_path):
    rows = [{"text": "how", "count": 0}, {"text": ""}, {"text": "why", "count": "many"}, {"text": "fine"}]
    path = write_rows(tmp_path / "asked.jsonl", rows)
    with pytest.raises(RequestError) as error:
        read_unlabelled(path)
    assert len(told(error)) == 3 and "must be a number above 0" in told(error)[0]
    assert read_unlabelled(path, skip_bad=True).items[:] == ["fine"]
    np.savez(tmp_path / "set.npz", x=pixels(3), count=[4, 1])
    with pytest.raises(RequestError, match="a number for each image is needed"):
        read_unlabelled(tmp_path / "set.npz")
    with pytest.raises(RequestError, match="holds no images and no texts"):
        read_unlabelled(write_rows(tmp_path / "none.jsonl", []))

"""Which files of a folder are images of which class, by their paths only."""

import pytest

from keras_mixer.data import finding


def make(folder, *names):
    """Creates empty files, and folders whose names end with "/"."""
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(
            parents=True, exist_ok=True
        )
        if not name.endswith("/"):
            path.touch()


def found_in(folder):
    """Returns `{part: {class: names}}` and `{name: reason}`, relative."""
    found = finding.find(folder)
    parts = {
        part: {
            name: [str(path.relative_to(folder)) for path in paths]
            for name, paths in classes.items()
        }
        for part, classes in found.parts.items()
    }
    skipped = {
        str(p.relative_to(folder)): reason for p, reason in found.skipped
    }
    return parts, skipped


def test_images_in_subfolders_belong_to_the_class(tmp_path):
    cats = ["cat/0.png", "cat/2.png", "cat/a/1.jpg", "cat/a/b/3.png"]
    make(tmp_path, *reversed(cats), "dog/b/c/1.png")
    parts, skipped = found_in(tmp_path)
    assert parts == {"train": {"cat": cats, "dog": ["dog/b/c/1.png"]}}
    assert skipped == {}


def test_links_are_followed_without_reading_a_folder_twice(tmp_path):
    photos = tmp_path / "photos"
    make(photos, "cat/1.png", "dog/1.png", "dog/2.png", "cat/4.png")
    make(tmp_path, "else/owl/1.png", "else/owl/3.png", "else/more/2.png")
    links = {
        "owl": tmp_path / "else" / "owl",
        "cat/more": tmp_path / "else" / "more",
        "cat/again": tmp_path / "else" / "more",
        "dog/loop": photos / "dog",
        "dog/up": photos,
        "dog/3.png": tmp_path / "else" / "owl" / "3.png",
        "dog/lost.png": tmp_path / "nowhere.png",
    }
    for name, target in links.items():
        (photos / name).symlink_to(target)
    parts, skipped = found_in(photos)
    assert parts["train"] == {
        "cat": ["cat/1.png", "cat/4.png", "cat/again/2.png"],
        "dog": ["dog/1.png", "dog/2.png", "dog/3.png"],
        "owl": ["owl/1.png", "owl/3.png"],
    }
    assert skipped.pop("dog/lost.png") == "it is a broken link"
    assert sorted(skipped) == ["cat/more", "dog/loop", "dog/up"]


def test_all_unused_files_are_reported(tmp_path):
    make(
        tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "1.png",
        "other/a/1.png", "test/2.png", "train/a/.hidden.png", ".cache/1.png",
        "train/a/Thumbs.db", "train/b/.DS_Store", "train/b/._1.png",
    )  # fmt: skip
    parts, skipped = found_in(tmp_path)
    assert parts == {
        "train": {"a": ["train/a/1.png"], "b": ["train/b/1.png"]},
        "test": {"a": ["test/a/1.png"]},
    }
    assert skipped == {
        ".cache": "it is hidden: its name begins with a dot",
        "1.png": "it is not in the folder of a class",
        "other": "its name is not that of a train, val or test folder",
        "test/2.png": "it is not in the folder of a class",
        "train/a/.hidden.png": "it is hidden: its name begins with a dot",
    }


@pytest.mark.parametrize("place", ["", "cat/", "train/", "train/cat/"])
def test_folders_of_systems_and_trainings_are_no_classes(place, tmp_path):
    names = ["train", "test"] if place.startswith("train") else ["."]
    folders = ["@eaDir", "$RECYCLE.BIN", "#recycle", "__MACOSX", "lost+found",
               "System Volume Information", ".ipynb_checkpoints", "__pycache__",
               "run", "report"]  # fmt: skip
    make(
        tmp_path,
        *(f"{part}/{name}/1.png" for part in names for name in ("cat", "dog")),
        *(f"{place}{name}/a/1.png" for name in folders),
        f"{place}run/run.json",
        f"{place}report/evaluation.json",
    )
    parts, skipped = found_in(tmp_path)
    assert len(parts) == len(names)
    for part in parts.values():
        sizes = {name: len(files) for name, files in part.items()}
        assert sizes == {"cat": 1, "dog": 1}
    assert skipped.keys() == {f"{place}{name}" for name in folders}
    assert {reason.partition(":")[0] for reason in skipped.values()} == {
        "it is hidden",
        "it is a folder of the system or of a tool",
        "it is the folder of a training",
        "it is the folder of an evaluation",
    }


def test_output_among_the_images_is_refused(tmp_path):
    for output in ("cat/run", "runs/first", "train/cat/run"):
        with pytest.raises(ValueError, match="must not be among the images"):
            finding.check_output(tmp_path, tmp_path / output)
    for output in (tmp_path / "run", tmp_path.parent / "run", "run"):
        finding.check_output(tmp_path, output)


@pytest.mark.parametrize(
    "names",
    [
        {"train": "train", "validation": "validation"},
        {"train": "train", "validation": "valid"},
        {"train": "Train", "validation": "VAL"},
        {"train": "training", "test": "testing"},
        {"train": "training_set", "test": "test_set"},
        {"train": "train", "validation": "val", "test": "test"},
        {"train": "TRAIN", "validation": "dev", "test": "Evaluation"},
    ],
)
def test_usual_names_of_the_parts_are_recognized(names, tmp_path):
    for name in names.values():
        make(tmp_path, f"{name}/a/1.png", f"{name}/b/1.png")
    parts, _ = found_in(tmp_path)
    assert parts == {
        part: {label: [f"{name}/{label}/1.png"] for label in ("a", "b")}
        for part, name in names.items()
    }


@pytest.mark.parametrize(
    ("names", "message", "error"),
    [
        ([], "which is not a folder", NotADirectoryError),
        (["a.png", "b.png"], r"Received: the folders \[\]", ValueError),
        (["a/1.png", "a/2.png"], r"Received: the folders \['a'\]", ValueError),
        (["a/1.png", "b/", "c/"], r"no images for \['b', 'c'\]", ValueError),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"],
         r"Received: \['c'\] only in .*test'", ValueError),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "Valid/b/1.png"],
         r"only one validation folder in .*\['Valid', 'val'\]", ValueError),
        (["seg_train/a/1.png", "seg_train/b/1.png", "seg_test/a/1.png"],
         r"train/training \(train\), val/valid/.*'seg_test' has subfolders but "
         "no images", ValueError),
        (["photos/a/1.png", "photos/b/1.png"],
         r"inside train/training .*Received: the folders \['photos'\]",
         ValueError),
    ],
)  # fmt: skip
def test_wrong_folders_raise_errors(names, message, error, tmp_path):
    make(tmp_path / "photos", *names)
    with pytest.raises(error, match=message):
        finding.find(tmp_path / "photos")

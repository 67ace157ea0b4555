"""Finds the image files of each class in a folder, by their paths only.

No file is decoded here. Each file below the folder is either a file of a class,
or in `skipped` with the reason, itself or a folder that it is in. Only files of
the operating system (`.DS_Store`, `Thumbs.db`) are ignored without a reason.
"""

import mimetypes
import os
import pathlib
import re
import typing

# The names of the folders of each part, in lower or upper case, with or without
# "_set" at the end. Source: the keywords of Hugging Face's `imagefolder`
# (`datasets/data_files.py`).
PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


_EXPECTED = (
    "Expected one folder of images per class, and at least two classes; or "
    "these folders inside "
    + ", ".join(f"{'/'.join(names)} ({part})" for part, names in PARTS.items())
    + ", in lower or upper case."
)


# Files that macOS, Windows and KDE write into folders, in lower case.
_SYSTEM_FILES = (".ds_store", ".directory", "desktop.ini", "thumbs.db")


# Folders that systems, storage servers and tools write beside or into those of
# the user, in lower case. Some have deleted images or thumbnails.
_SYSTEM_FOLDERS = (
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "@eadir",
    "@recycle",
    "__macosx",
    "__pycache__",
    "lost+found",
    "system volume information",
)


# Folders that the command line wrote, by a file in them.
_RECORDS = {"run.json": "a training", "evaluation.json": "an evaluation"}


class Found(typing.NamedTuple):
    """The files of a folder.

    `folder` is its path. `parts` is `{part: {class name: paths}}`. The part
    "train" always exists, "validation" and "test" only if the folder has them.
    `skipped` is a list of `(path, reason)`.
    """

    folder: pathlib.Path
    parts: dict
    skipped: list


def find(folder):
    """Finds the files of each class, sorted by path.

    The files of a class are all files in its folder and in subfolders. Links
    are followed. A folder that is reached twice is read once.

    Args:
        folder: Path of the folder.

    Returns:
        A `Found`.

    Raises:
        OSError: If the folder does not exist or cannot be read.
        ValueError: If there are fewer than two classes, a class without files,
            or held-out images of an unknown class; or if the folders do not
            have one of the expected structures.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from keras_mixer.data import finding
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat/1.png", "cat/more/2.png", "dog/3.png"):
    ...         path = pathlib.Path(folder, name)
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         path.touch()
    ...     files = finding.find(folder).parts["train"]
    >>> {name: [path.name for path in paths] for name, paths in files.items()}
    {'cat': ['1.png', '2.png'], 'dog': ['3.png']}
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{_EXPECTED} Received: '{folder}', which is not a folder"
        )
    parts, skipped = _parts(folder)
    files = {}
    for part, part_folder in parts.items():
        files[part] = _files_of_classes(part_folder, skipped)
        if part == "train":
            _check_classes(part_folder, files[part])
        unknown = sorted(set(files[part]) - set(files["train"]))
        if unknown:
            raise ValueError(
                "The classes of held-out images must also have images to "
                f"train on. Received: {unknown} only in '{part_folder}'"
            )
    return Found(folder, files, skipped)


def check_output(folder, output):
    """Raises an error if what is written would be in the folder of a class.

    Directly in the folder of the images, a training or a report is skipped.

    Args:
        folder: Path of the folder of the images.
        output: Path of the folder to write.
    """
    folder, output = pathlib.Path(folder), pathlib.Path(output)
    if folder.resolve() in output.resolve().parent.parents:
        raise ValueError(
            "The output must not be among the images: its folder would be "
            f"taken for that of a class. Use a folder outside of '{folder}', "
            f"or directly in it. Received: '{output}'"
        )


def _parts(folder):
    """Returns `{part: folder}`, "train" first, and skipped paths."""
    names, skipped = _content(folder)
    found = {
        part: [name for name in names if _part_of(name) == part]
        for part in PARTS
    }
    if not found["train"] or not (
        found["validation"] or found["test"] or len(names) == 1
    ):
        _check_no_parts(folder, names)
        # `_files_of_classes` adds the skipped paths.
        return {"train": folder}, []
    for part, same in found.items():
        if len(same) > 1:
            raise ValueError(
                f"There must be only one {part} folder in '{folder}'. "
                f"Received: {same}"
            )
    skipped += [
        (folder / name, "its name is not that of a train, val or test folder")
        for name in names
        if _part_of(name) is None
    ]
    parts = {part: folder / same[0] for part, same in found.items() if same}
    return parts, skipped


def _part_of(name):
    """Returns the part for the name of a folder, or `None`."""
    name = name.lower().removesuffix("_set")
    for part, names in PARTS.items():
        if name in names:
            return part
    return None


def _check_no_parts(folder, names):
    """Raises an error if folders of classes look like folders of parts.

    Without this check, folders "seg_train" and "seg_test" would be two classes,
    since files in subfolders are used too.
    """
    known = {name for names_of_part in PARTS.values() for name in names_of_part}
    for name in names:
        words = set(re.findall("[a-z]+", name.lower()))
        if words & known and _holds_folders_but_no_images(folder / name):
            raise ValueError(
                f"{_EXPECTED} Received: the folders {names} in '{folder}', "
                f"where '{name}' has subfolders but no images"
            )


def _holds_folders_but_no_images(folder):
    names, others = _content(folder)
    types = [mimetypes.guess_type(path.name)[0] or "" for path, _ in others]
    return bool(names) and not any(kind.startswith("image/") for kind in types)


def _content(folder):
    """Returns the sorted names of subfolders, and skipped paths."""
    names, skipped = [], []
    for child in _children(folder, skipped):
        if child.is_dir():
            names.append(child.name)
        else:
            skipped.append((child, "it is not in the folder of a class"))
    return names, skipped


def _children(folder, skipped):
    """Yields the sorted paths in a folder that may be of use.

    Adds the others to `skipped`, except files of the system.
    """
    for child in sorted(folder.iterdir()):
        name = child.name.lower()
        if name in _SYSTEM_FILES or name.startswith("._"):
            continue
        if reason := _reason_to_skip(child):
            skipped.append((child, reason))
        else:
            yield child


def _reason_to_skip(path):
    if path.name.startswith("."):
        return "it is hidden: its name begins with a dot"
    if not path.is_dir():
        return None
    if path.name.lower() in _SYSTEM_FOLDERS:
        return "it is a folder of the system or of a tool"
    for file, what in _RECORDS.items():
        if (path / file).is_file():
            return f"it is the folder of {what}: it has a file {file}"
    return None


def _files_of_classes(folder, skipped):
    """Returns `{class name: paths}`; adds other files to `skipped`."""
    names, beside = _content(folder)
    skipped += beside
    return {name: files_below(folder / name, skipped) for name in names}


def _check_classes(folder, files):
    if len(files) < 2:
        raise ValueError(
            f"{_EXPECTED} Received: the folders {list(files)} in '{folder}'"
        )
    empty = [name for name, paths in files.items() if not paths]
    if empty:
        raise ValueError(
            "Every class must have images in its folder. "
            f"Received: no images for {empty} in '{folder}'"
        )


def files_below(folder, skipped):
    """Returns all files in a folder and its subfolders, sorted by path.

    Args:
        folder: `pathlib.Path` of the folder.
        skipped: A list. `(path, reason)` of skipped paths is appended to it.
    """
    files = []
    # Links to parent folders are not followed, since these have other classes.
    # Links to a folder that was read already are not followed either.
    around = {*folder.absolute().parents, *folder.resolve().parents}
    read = {_identity(each) for each in around}
    # Links are read last: if a folder can be reached without a link, its files
    # have the path without the link.
    folders, links = [folder], []
    while folders or links:
        current = (folders or links).pop(0)
        if _identity(current) in read:
            skipped.append(
                (current, "it is a link to a folder that is read already")
            )
            continue
        read.add(_identity(current))
        for child in _children(current, skipped):
            if child.is_dir():
                (links if child.is_symlink() else folders).append(child)
            elif child.is_file():
                files.append(child)
            elif child.is_symlink() and not child.exists():
                skipped.append((child, "it is a broken link"))
            else:
                skipped.append((child, "it is not a regular file"))
    return sorted(files)


def _identity(folder):
    """Returns a value that is the same for all paths of a folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino

"""Which files of a folder are the images of which class, by their names alone.

Nothing is decoded here. Every file below the folder is either among the files
of a class or in `skipped`, with the reason; only the files that operating
systems leave behind (`.DS_Store`, `Thumbs.db`) are passed over in silence.
"""

import mimetypes
import os
import pathlib
import re
import typing

# The names that folders of the parts have, in any case and with or without
# "_set" at the end. Source: the keywords that Hugging Face's `imagefolder`
# knows (`datasets/data_files.py`).
PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


_EXPECTED = (
    "Expected a folder of images for each class, and at least two classes; or "
    "such folders inside "
    + ", ".join(f"{'/'.join(names)} ({part})" for part, names in PARTS.items())
    + ", in lower or upper case."
)


# What macOS, Windows and KDE write into folders, in lower case.
_SYSTEM_FILES = (".ds_store", ".directory", "desktop.ini", "thumbs.db")


class Found(typing.NamedTuple):
    """The files of a folder.

    `parts` is `{part: {class name: paths}}`, with the part "train" and, where
    the folder has them, "validation" and "test". `skipped` is a list of
    `(path, reason)`.
    """

    parts: dict
    skipped: list


def find(folder):
    """Finds the files of each class, in an order that depends on names alone.

    The files of a class are all below its folder, in subfolders too, sorted by
    path. Links are followed; a folder that is reached twice is read once.

    Args:
        folder: Path of the folder.

    Returns:
        A `Found`.

    Raises:
        OSError: If there is no such folder, or it cannot be read.
        ValueError: If there are fewer than two classes, a class without files,
            or held-out images of an unknown class; or if the folders could not
            be understood.

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
                "The classes of the images held out must be among those to "
                f"train on. Received: {unknown} in '{part_folder}' alone"
            )
    return Found(files, skipped)


def _parts(folder):
    """`{part: folder}`, "train" first, and what lies beside them."""
    names, skipped = _content(folder)
    found = {
        part: [name for name in names if _part_of(name) == part]
        for part in PARTS
    }
    if not found["train"] or not (
        found["validation"] or found["test"] or len(names) == 1
    ):
        _check_no_parts(folder, names)
        # What lies beside the classes is listed with them.
        return {"train": folder}, []
    for part, same in found.items():
        if len(same) > 1:
            raise ValueError(
                f"There must be one folder of {part} images in '{folder}'. "
                f"Received: {same}"
            )
    skipped += [
        (folder / name, "it is not named like a train, val or test folder")
        for name in names
        if _part_of(name) is None
    ]
    parts = {part: folder / same[0] for part, same in found.items() if same}
    return parts, skipped


def _part_of(name):
    """The part that a folder of this name holds, or `None`."""
    name = name.lower().removesuffix("_set")
    for part, names in PARTS.items():
        if name in names:
            return part
    return None


def _check_no_parts(folder, names):
    """Refuses to take folders of parts for classes.

    Files are found in subfolders too, so "seg_train" and "seg_test" would make
    a data set of two classes.
    """
    known = {name for names_of_part in PARTS.values() for name in names_of_part}
    for name in names:
        words = set(re.findall("[a-z]+", name.lower()))
        if words & known and _holds_folders_but_no_images(folder / name):
            raise ValueError(
                f"{_EXPECTED} Received: the folders {names} in '{folder}', "
                f"where '{name}' holds folders but no images"
            )


def _holds_folders_but_no_images(folder):
    names, others = _content(folder)
    types = [mimetypes.guess_type(path.name)[0] or "" for path, _ in others]
    return bool(names) and not any(kind.startswith("image/") for kind in types)


def _content(folder):
    """Names of the folders in a folder, sorted; other paths, with a reason."""
    names, skipped = [], []
    for child in _children(folder, skipped):
        if child.is_dir():
            names.append(child.name)
        else:
            skipped.append((child, "it is not in the folder of a class"))
    return names, skipped


def _children(folder, skipped):
    """Paths in a folder, sorted; the hidden ones are added to `skipped`."""
    for child in sorted(folder.iterdir()):
        if child.name.startswith(".") and not _is_of_system(child):
            skipped.append((child, "it is hidden: its name begins with a dot"))
        elif not _is_of_system(child):
            yield child


def _is_of_system(path):
    name = path.name.lower()
    return name in _SYSTEM_FILES or name.startswith("._")


def _files_of_classes(folder, skipped):
    """`{class name: paths}`; what is left out is added to `skipped`."""
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
            f"Received: none for {empty} in '{folder}'"
        )


def files_below(folder, skipped):
    """All files below a folder, sorted by path.

    Args:
        folder: `pathlib.Path` of the folder.
        skipped: A list, to which `(path, reason)` of others are added.
    """
    files = []
    # Folders around this one hold other classes: links to them are not
    # followed, and neither is a link into what was read already.
    around = {*folder.absolute().parents, *folder.resolve().parents}
    read = {_identity(each) for each in around}
    # Links come last: what they lead to has its path without them if there is
    # one.
    folders, links = [folder], []
    while folders or links:
        current = (folders or links).pop(0)
        if _identity(current) in read:
            skipped.append(
                (current, "it links to a folder that is read already")
            )
            continue
        read.add(_identity(current))
        for child in _children(current, skipped):
            if child.is_dir():
                (links if child.is_symlink() else folders).append(child)
            elif child.is_file():
                files.append(child)
            elif child.is_symlink() and not child.exists():
                skipped.append((child, "it links to nothing"))
            else:
                skipped.append((child, "it is not a regular file"))
    return sorted(files)


def _identity(folder):
    """The same for all paths of a folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino

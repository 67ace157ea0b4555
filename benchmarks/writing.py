"""Writes a folder of results, whole or not at all."""

import importlib.util
import json
import os
import pathlib
import shutil
import tempfile


def check_output(folder):
    """Raises an error if a folder for results exists and has files.

    Args:
        folder: Path of a folder that must be new or empty.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            "`--output` must be the path of a new or an empty folder. "
            f"Received: '{folder}'"
        )


def write(folder, results, page, draw, stem="results"):
    """Writes a JSON file, a page and a picture into a folder.

    They are written to another folder beside it, which then gets its name. The
    picture is left out if Matplotlib is not installed.

    Args:
        folder: Path of a new or an empty folder.
        results: Dict of JSON values.
        page: String, the Markdown page.
        draw: Function of `results` and the path of a PNG file.
        stem: The names of the files without their suffixes.

    Returns:
        List of the paths of the files.
    """
    check_output(folder)
    folder = pathlib.Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(prefix=".new_", dir=folder.parent))
    try:
        new.chmod(0o755)
        text = json.dumps(results, indent=1)
        (new / f"{stem}.json").write_text(text + "\n", "utf-8")
        (new / f"{stem}.md").write_text(page, "utf-8")
        if importlib.util.find_spec("matplotlib") is not None:
            draw(results, new / f"{stem}.png")
        os.replace(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return sorted(folder.iterdir())

"""What `push` wrote: the files, and the parts of the model card."""

import re

import yaml

NAMES = ["a cat", "b <c>", "ü|*", "d, e", 'f "g"']


def files_in(folder):
    return sorted(file.name for file in folder.iterdir())


def header_of(folder):
    """The YAML at the start of the card."""
    _, header, _ = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(header)


def section_of(folder, title):
    text = (folder / "README.md").read_text("utf-8")
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found


def blocks_of(folder):
    text = (folder / "README.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)

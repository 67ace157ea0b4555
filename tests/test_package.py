"""The package as a whole: who imports whom, and what README promises."""

import ast
import configparser
import dataclasses
import functools
import graphlib
import importlib
import inspect
import itertools
import json
import re

import pytest

import keras_mixer
from support import published
from support.helpers import GOLDEN
from support.helpers import ROOT
from support.helpers import python

PACKAGE = ROOT / "keras_mixer"

# A room imports only from the floors in front of its own, or from itself.
FLOORS = [
    {"arguments", "keras_private", "optional", "types", "variants"},
    {"atomic"},
    {"data", "distributing", "labels", "layers", "weights"},
    {"models", "training"},
    {"exporting", "mixer", "recipes", "resmlp", "visualizing"},
    {"api"},
    {"cli"},
    {"__init__", "__main__"},
]
# Imported within the function that needs it, or by Keras.
NEVER_AT_TOP = {
    "PIL",
    "ai_edge_litert",
    "h5py",
    "huggingface_hub",
    "jax",
    "keras_cv",
    "matplotlib",
    "ml_dtypes",
    "onnx",
    "onnxruntime",
    "openvino",
    "safetensors",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "tf2onnx",
    "torch",
}


@functools.cache
def modules():
    """`{name: syntax tree}` of all modules, without "keras_mixer."."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(
            path.read_text("utf-8")
        )
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imported_at_top(tree):
    for node in tree.body:
        if isinstance(node, ast.If):
            yield from imported_at_top(node)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(tree):
    """The modules of this package that a module imports at its top."""
    for target in imported_at_top(tree):
        name = target.removeprefix("keras_mixer.")
        if name == target:
            continue
        # `from room import module`, or `from module import name`.
        module = name.rpartition(".")[0]
        known = (name, f"{name}.__init__", module, f"{module}.__init__")
        yield next(each for each in known if each in modules())


def floor_of(name):
    (floor,) = (
        i for i, rooms in enumerate(FLOORS) if name.partition(".")[0] in rooms
    )
    return floor


@pytest.mark.parametrize(("name", "tree"), modules().items())
def test_imports_go_downwards(name, tree):
    for target in imported_modules(tree):
        same_room = name.partition(".")[0] == target.partition(".")[0]
        assert same_room or floor_of(target) < floor_of(name), target
    for target in imported_at_top(tree):
        assert target.split(".")[0] not in NEVER_AT_TOP, target


def test_imports_have_no_circle():
    graph = {
        name: set(imported_modules(tree)) for name, tree in modules().items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_importing_adds_nothing_to_what_keras_imports(backend):
    code = """
import sys
import keras
before = set(sys.modules)
import keras_mixer
added = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(added - set(sys.stdlib_module_names)))
"""
    assert python(code, backend=backend).strip() == "['keras_mixer']"


def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_keras_and_numpy_are_all_it_requires():
    required = setup_cfg()["options"]["install_requires"].split()
    assert required == ["keras>=3.15", "numpy"]


def test_the_version_is_the_newest_of_the_changelog():
    versions = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert keras_mixer.__version__ == versions[0]


def test_everything_public_exists_and_is_documented_with_an_example():
    for name in keras_mixer.__all__:
        thing = getattr(keras_mixer, name)
        assert thing.__doc__, name
        # A variant's example would be its family's, at full size.
        is_variant = re.fullmatch(r"(Mixer|ResMLP)([SBLH][0-9P]+|Nano)", name)
        if is_variant or inspect.ismodule(thing):
            continue
        assert "\n    >>> " in thing.__doc__, name


def public_functions():
    """`(name, function)` of the public API, methods and properties included."""
    names = json.loads((GOLDEN / "public_names.json").read_text())
    for module, listed in names.items():
        for name in listed:
            thing = getattr(importlib.import_module(module), name)
            if inspect.isfunction(thing):
                yield f"{module}.{name}", thing
            if not inspect.isclass(thing):
                continue
            for key, value in vars(thing).items():
                value = getattr(
                    value, "fget", getattr(value, "__func__", value)
                )
                is_public = not key.startswith("_") or key == "__init__"
                # Dataclasses write some methods themselves.
                is_ours = value.__class__.__name__ == "function" and (
                    value.__module__.startswith("keras_mixer")
                    and value.__qualname__.startswith(thing.__name__)
                )
                if is_public and is_ours and not is_generated(thing, key):
                    yield f"{module}.{name}.{key}", value


def is_generated(thing, key):
    return dataclasses.is_dataclass(thing) and key == "__init__"


# Methods of layers that only this package calls.
INTERNAL = ("fold", "is_random", "dtype_of", "rematerialized_call")


@pytest.mark.parametrize(("name", "function"), list(public_functions()))
def test_the_public_api_is_annotated(name, function):
    if name.rpartition(".")[2] in INTERNAL:
        return
    signature = inspect.signature(function)
    missing = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty
        and parameter.name not in ("self", "cls")
    ]
    assert missing == []
    assert signature.return_annotation is not signature.empty


def test_public_names_stay():
    names = json.loads((GOLDEN / "public_names.json").read_text())
    for module, listed in names.items():
        thing = importlib.import_module(module)
        assert [name for name in listed if not hasattr(thing, name)] == []
    assert sorted(keras_mixer.__all__) == names["keras_mixer"]


def text_of(page):
    return (ROOT / page).read_text("utf-8")


def blocks(page, language):
    """The blocks of code of a page in Markdown."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.M | re.S)


def docs_pages():
    return sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))


def test_docs_have_the_generated_table_of_variants():
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from support import variants_table
print(variants_table.table())
"""
    table = python(code, backend="torch").strip()
    assert table in (ROOT / "docs" / "models.md").read_text("utf-8"), (
        "run `KERAS_BACKEND=torch PYTHONPATH=tests python -m "
        "support.variants_table` and put its table into docs/models.md"
    )


def test_readme_links_to_every_page():
    readme = (ROOT / "README.md").read_text("utf-8")
    linked = set(re.findall(r"\((docs/[^)]+)\)", readme))
    pictures = set(re.findall(r"!\[[^]]+\]\((docs/[^)]+)\)", readme))
    assert set(docs_pages()) == linked - pictures
    assert all((ROOT / each).is_file() for each in pictures)


def test_workarounds_name_existing_code_and_tests():
    def python_of(path):
        files = path.rglob("*.py") if path.is_dir() else [path]
        return "".join(file.read_text("utf-8") for file in files)

    rows = [
        [re.findall(r"`([\w/.]+)`", cell) for cell in line.split(" | ")]
        for line in text_of("docs/workarounds.md").splitlines()
        if line.startswith("| `")
    ]
    assert len(rows) > 30
    tests = python_of(ROOT / "tests")
    for code, *others in rows:
        found = ""
        for name in code:
            if "/" in name or name.endswith(".py"):
                path = PACKAGE / name
                found += python_of(path if path.exists() else ROOT / name)
        for name in code:
            if "/" not in name and not name.endswith(".py"):
                assert re.search(rf"\b{name}\b", found), (name, code)
        for name in itertools.chain(*others):
            if name.startswith("test_"):
                assert f"def {name}(" in tests, name
            elif name.startswith("tests/"):
                assert (ROOT / name).exists(), name


def test_the_gate_runs_the_test_command_of_readme():
    gate = (ROOT / ".ci" / "run").read_text()
    commands = "".join(blocks("README.md", "sh")).splitlines()
    assert [command for command in commands if f"\n{command}\n" in gate]


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("tensorflow", marks=pytest.mark.nightly),
        pytest.param("jax", marks=pytest.mark.nightly),
        "torch",
    ],
)
def test_code_of_readme_and_docs_runs(backend, tmp_path):
    """Each page from top to bottom, offline.

    The folder has a photo, images in folders, and weights in its cache.
    """
    published.put_into(tmp_path, "mixer_b16.imagenet")
    pages = {
        page: "".join(blocks(page, "python"))
        for page in ("README.md", *docs_pages())
    }
    assert sum(map(bool, pages.values())) >= 6
    (tmp_path / "pages.json").write_text(json.dumps(pages))
    code = f"""
import gc
import json
import os
import keras
import numpy as np
from PIL import Image
gc.freeze()  # as in conftest
os.chdir({str(tmp_path)!r})
os.environ["KERAS_HOME"] = os.getcwd()
os.environ["KERAS_MIXER_OFFLINE"] = "1"
Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 90).save("photo.jpg")
for i in range(10):
    animal = ("cat", "dog")[i % 2]
    os.makedirs(f"photos/{{animal}}", exist_ok=True)
    Image.effect_noise((40, 30), 90).save(f"photos/{{animal}}/{{i}}.png")
for page, code in json.load(open("pages.json")).items():
    side = 64 if page == "README.md" else 224
    images = np.random.default_rng(0).uniform(0, 255, (4, side, side, 3))
    given = {{"images": images, "labels": np.arange(4) % 3}}
    exec(compile(code, page, "exec"), given)
"""
    assert "('n" in python(code, backend=backend)

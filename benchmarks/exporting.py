"""Compares exported files with the model, from each backend, as a table.

`python benchmarks/exporting.py MODEL PHOTOS`, where MODEL is the folder of a
training, a `.keras` file or the name of published weights, and PHOTOS a folder
with photos in any subfolders. 100 photos are for calibration, up to 1,000
others are compared. Docs: docs/export.md.
"""

import argparse
import copy
import gc
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

import keras_mixer
from keras_mixer.cli import models
from keras_mixer.exporting.exporter import process_environment
from keras_mixer.exporting.formats import find_format
from keras_mixer.exporting.running import load

BACKENDS = ("tensorflow", "jax", "torch")
CALIBRATED, COMPARED, TIMED = 100, 1000, 50

# The suffix of the file, the dtype, and whether the photos calibrate it. Keras
# quantises "int4", and the quantised model is exported.
CASES = (
    ("", "float32", False),
    ("", "int8", False),
    ("", "int4", False),
    (".onnx", "float32", False),
    (".onnx", "float16", False),
    (".onnx", "int8", False),
    (".onnx", "int8", True),
    (".onnx", "int4", False),
    (".xml", "float32", False),
    (".xml", "float16", False),
    (".xml", "int8", True),
    (".xml", "int4", False),
    (".tflite", "float32", False),
    (".tflite", "float16", False),
    (".tflite", "int8", False),
    (".tflite", "int8", True),
    (".tflite", "int4", False),
    (".pt2", "float32", False),
    (".pt2", "int8", False),
    (".pt2", "int4", False),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("--fuse", action="store_true")
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(arguments, folder)
        measured = {}
        for backend in arguments.backend or BACKENDS:
            measured[backend] = in_process(backend, folder)
    print_table(measured)


def prepare(arguments, folder):
    """Writes the model and the photos to a folder."""
    loaded = models.load(arguments.model)
    model = loaded.model
    files = sorted(
        file
        for file in arguments.photos.rglob("*")
        if file.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    chosen = np.random.default_rng(0).permutation(len(files))
    photos = [
        keras_mixer.load_image(files[i], model, **loaded.evaluation)
        for i in chosen[: CALIBRATED + COMPARED]
    ]
    np.save(pathlib.Path(folder, "photos.npy"), np.concatenate(photos))
    model = keras_mixer.fuse(model) if arguments.fuse else model
    model.save(pathlib.Path(folder, "model.keras"))


def in_process(backend, folder):
    """Returns what `measure` prints in a process with a backend."""
    code = "import sys, exporting; exporting.measure(sys.argv[1])"
    process = subprocess.run(
        [sys.executable, "-c", code, folder],
        env=process_environment(backend),
        cwd=pathlib.Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in process.stdout.splitlines()]


def measure(folder):
    """Prints the size, the difference and the time of each file as JSON."""
    model = keras.saving.load_model(
        pathlib.Path(folder, "model.keras"), compile=False
    )
    photos = np.load(pathlib.Path(folder, "photos.npy"))
    calibration, photos = photos[:CALIBRATED], photos[CALIBRATED:]
    expected = model.predict(photos, verbose=0)
    native = milliseconds(model.predict_on_batch, photos)
    print(json.dumps({"native": native}))
    # Keras collects garbage for each layer that it quantises, which takes
    # minutes with all that is imported here.
    gc.collect()
    gc.freeze()
    for suffix, dtype, calibrated in CASES:
        path = pathlib.Path(folder, f"exported{suffix}")
        try:
            result = compare(
                *(model, path, dtype, photos, expected),
                calibration if calibrated else None,
            )
        except (ValueError, RuntimeError) as error:
            result = {"error": str(error)}
        print(json.dumps(result), flush=True)


def compare(model, path, dtype, photos, expected, calibration):
    if dtype == "int4":
        model = copy.deepcopy(model)
        model.quantize("int4")
        dtype = "float32"
    keras_mixer.export(
        model, path, dtype=dtype, calibration=calibration, overwrite=True
    )
    run = load(find_format(None, path).name, path)
    parts = np.array_split(photos, -(-len(photos) // 32))
    outputs = [next(iter(run(part).values())) for part in parts]
    received = np.concatenate(outputs)
    return {
        "bytes": size_of(path),
        "same": float(np.mean(received.argmax(1) == expected.argmax(1))),
        "difference": float(np.abs(received - expected).max()),
        "milliseconds": milliseconds(run, photos),
    }


def size_of(path):
    if path.is_dir():
        return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    files = [path, *([path.with_suffix(".bin")] * (path.suffix == ".xml"))]
    return sum(file.stat().st_size for file in files)


def milliseconds(function, photos):
    """Returns the median time for a photo, one at a time."""
    times = []
    for photo in photos[:TIMED]:
        start = time.perf_counter()
        function(photo[None])
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def print_table(measured):
    natives = {name: rows.pop(0)["native"] for name, rows in measured.items()}
    for name, native in natives.items():
        print(f"model on {name}: {native:.1f} ms for a photo", file=sys.stderr)
    names = " | ".join(measured)
    print(f"| format | `dtype` | photos | MB | ms | same class [%]: {names} |")
    print("|---|---|---|---:|---:|" + "---:|" * len(measured))
    for case, *results in zip(CASES, *measured.values(), strict=True):
        print(row(case, results))


def row(case, results):
    suffix, dtype, calibrated = case
    name = find_format(None, f"file{suffix}").name
    cells = [f"`{name}`", dtype, "yes" if calibrated else ""]
    first, *_ = [each for each in results if "bytes" in each] or [None]
    if first is None:
        cells += ["", ""]
    else:
        cells += [f"{first['bytes'] / 1e6:.2f}", f"{first['milliseconds']:.1f}"]
    for each in results:
        if "error" in each:
            cells.append("-")
            print(f"{name}, {dtype}: {each['error'][:300]}", file=sys.stderr)
        else:
            same, difference = 100 * each["same"], each["difference"]
            cells.append(f"{same:.1f} ({difference:.1g})")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

"""Compares exported files of MixerNano with the model, as a Markdown table.

`KERAS_BACKEND=tensorflow python benchmarks/exporting.py FOLDER`, where FOLDER
has photos of CIFAR-10 in any subfolders. 100 photos are for calibration, 1,000
others are compared. Docs: docs/export.md.
"""

import argparse
import pathlib
import tempfile

import numpy as np

import keras_mixer
from keras_mixer.exporting.running import run

CALIBRATED, COMPARED = 100, 1000
CASES = (
    (".onnx", "float32", False),
    (".onnx", "float16", False),
    (".onnx", "int8", False),
    (".onnx", "int8", True),
    (".xml", "float32", False),
    (".xml", "float16", False),
    (".xml", "int8", True),
    (".tflite", "float32", False),
    (".tflite", "float16", False),
    (".tflite", "int8", False),
    (".tflite", "int8", True),
    ("", "float32", False),
    ("", "int8", False),
)
FORMATS = {
    ".onnx": "onnx",
    ".xml": "openvino",
    ".tflite": "litert",
    "": "saved_model",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    files = sorted(parser.parse_args().folder.rglob("*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(files))
    model = keras_mixer.MixerNano(weights="cifar10")
    photos = np.concatenate(
        [
            keras_mixer.load_image(files[i], model, crop_ratio=1.0)
            for i in chosen[: CALIBRATED + COMPARED]
        ]
    )
    calibration, photos = photos[:CALIBRATED], photos[CALIBRATED:]
    expected = model.predict(photos, verbose=0)
    print("| format | `dtype` | photos | MB | same class [%] | difference |")
    print("|---|---|---|---:|---:|---:|")
    for suffix, dtype, calibrated in CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, f"model{suffix}")
            keras_mixer.export(
                model,
                path,
                dtype=dtype,
                calibration=calibration if calibrated else None,
            )
            received = run(FORMATS[suffix], path, photos)["predictions"]
            files = [f for f in path.parent.rglob("*") if f.is_file()]
            size = sum(file.stat().st_size for file in files) / 1e6
        same = np.mean(received.argmax(axis=1) == expected.argmax(axis=1))
        difference = np.abs(received - expected).max()
        print(
            f"| `{FORMATS[suffix]}` | {dtype} | {'yes' if calibrated else ''} "
            f"| {size:.2f} | {100 * same:.1f} | {difference:.1g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

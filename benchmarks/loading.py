"""How fast, and in how much memory, the largest published file is loaded.

    KERAS_BACKEND=jax python benchmarks/loading.py

The file is one of the exact structure of imagenet21k/Mixer-L_16.npz (918 MB),
with random weights, in a temporary folder and in the cache of the disk. Each
row is a process of its own; memory is what the process takes beyond the
imports, at its highest. Building the model alone is measured too.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))

import keras

import keras_mixer
from keras_mixer.weights import downloads
from keras_mixer.weights import loading
from keras_mixer.weights import reading
from support import published

(RECORD,) = keras_mixer.list_weights("mixer_l16.imagenet21k")


def build(weights):
    return keras_mixer.MixerL16(weights=weights, classes=21843)


ROWS = {
    "read": lambda file: reading.read(file),
    "read and rename": lambda file: loading.open_weights(file),
    "build": lambda file: build(None),
    "build and load": lambda file: build("imagenet21k"),
}


def main():
    if len(sys.argv) > 1:
        measure(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["KERAS_HOME"] = home
        file = downloads.folder() / RECORD.file
        published.write(RECORD, file)
        file.read_bytes()
        for row in ROWS:
            subprocess.run([sys.executable, __file__, row], check=True)


def measure(row):
    file = downloads.folder() / RECORD.file
    keras.ops.convert_to_numpy(keras.ops.ones(3) * 2)  # starts the backend
    before = peak()
    start = time.perf_counter()
    result = ROWS[row](file)
    seconds = time.perf_counter() - start
    print(
        f"{row:16} {seconds:6.2f} s  {RECORD.size / 1e9 / seconds:5.2f} GB/s  "
        f"{(peak() - before) / RECORD.size:5.2f} times the size of the file"
    )
    del result


def peak():
    # Not `ru_maxrss`, which a child has from its parent.
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main()

"""README's table of published weights.

`PYTHONPATH=tests python -m support.weights_table` prints it.
"""

from keras_mixer.cli import files
from keras_mixer.weights import catalog


def table():
    return files.table(catalog.RECORDS)


if __name__ == "__main__":
    print(table(), end="")

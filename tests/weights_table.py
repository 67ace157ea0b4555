"""README's table of published weights: `python tests/weights_table.py`."""

from keras_mixer import cli
from keras_mixer.weights import catalog


def table():
    return cli.table(catalog.RECORDS)


if __name__ == "__main__":
    print(table(), end="")

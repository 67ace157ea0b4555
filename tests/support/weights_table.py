"""README's table of published weights.

`PYTHONPATH=tests python -m support.weights_table` prints it.
"""

from keras_mixer import cli
from keras_mixer.weights import catalog


def table():
    return cli.table(catalog.RECORDS)


if __name__ == "__main__":
    print(table(), end="")

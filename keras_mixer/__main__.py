"""`python -m keras_mixer`."""

from keras_mixer.cli import main

main()

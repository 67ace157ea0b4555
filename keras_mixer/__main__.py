"""`python -m keras_mixer`."""

from keras_mixer.cli import main

if __name__ == "__main__":
    main()

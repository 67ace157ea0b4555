"""The commands `finetune` and `train`."""

import sys

from keras_mixer.cli.implementation import implementation
from keras_mixer.commands import checks
from keras_mixer.commands import recipe_files
from keras_mixer.commands.names import default_weights
from keras_mixer.commands.settings import Settings
from keras_mixer.commands.settings import add_arguments

# The epochs of a training from scratch by default.
EPOCHS = 30


def train_arguments(parser):
    _training_arguments(parser, epochs=(None, EPOCHS))


def finetune_arguments(parser):
    _training_arguments(
        parser,
        recipe=("finetune.pets", "finetune.pets"),
        weights=(None, "imagenet, or cifar10 for MixerNano"),
    )


def _training_arguments(parser, **changed):
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder of the training: a new folder, or one to resume",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="SEED",
        help="train once with each of these seeds, each in a folder in "
        "--output, and show the mean accuracy (default: train with --seed)",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="do not show progress bars"
    )
    parser.add_argument(
        "--prolong",
        action="store_true",
        help="train a finished training further, up to --epochs in total, with "
        "a new warm-up and decay of the learning rate; all other settings must "
        "be the same",
    )
    add_arguments(parser, Settings.names(), **changed)


def finetune(args):
    args.weights = args.weights or default_weights(args.model)
    _run(args)


def train(args):
    if args.epochs is None and not args.prolong:
        args.epochs = EPOCHS
    _run(args)


def _run(args):
    given = {name: getattr(args, name) for name in Settings.names()}
    if args.recipe.endswith(recipe_files.SUFFIX):
        given["recipe"] = recipe_files.load(args.recipe, args.output)
    settings = Settings(**given)
    checks.check_training(settings)
    bars = 1 if sys.stdout.isatty() else 2
    verbose = 0 if args.quiet else bars
    if args.seeds:
        _run_seeds(args, settings, verbose)
        return
    module = implementation("train", reads_data_sets=True)
    results = module.train(
        settings, args.output, verbose=verbose, prolong=args.prolong
    )
    if results:
        print(module.summary(results, args.output))


def _run_seeds(args, settings, verbose):
    if args.seed or args.prolong:
        raise ValueError(
            "`--seeds` cannot be used with `--seed` or `--prolong`. "
            f"Received: seed={args.seed}, seeds={args.seeds}, "
            f"prolong={args.prolong}"
        )
    seeds = implementation("seeds", reads_data_sets=True)
    summary = seeds.train_seeds(settings, args.seeds, args.output, verbose)
    print("\n".join([*seeds.described(summary), f"See '{args.output}'."]))


def stopped(args):
    """Returns the message for a command that the user stopped."""
    if not hasattr(args, "output"):
        return "stopped. Repeat this command to start it again."
    if getattr(args, "seeds", None):
        return "stopped. Repeat this command to resume it."
    # Not there if Keras was being imported.
    train = sys.modules.get("keras_mixer.commands.train")
    if train is None:
        return "stopped. Repeat this command to start or resume the training."
    epochs = len(train.training.read_log(args.output))
    return f"stopped after {epochs} epochs. Repeat this command to resume it."

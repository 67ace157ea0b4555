"""The help of the commands: what a command does, and an example."""

TEXTS = {
    "finetune": (
        "Train published weights on your images. The result is a folder with "
        "the model, its curves and all settings. The same command resumes a "
        "training that was stopped.",
        "--data photos --output runs/photos",
    ),
    "train": (
        "Train a model from scratch. The result is a folder with the model, "
        "its curves and all settings. The same command resumes a training "
        "that was stopped.",
        "--data photos --image-size 64 --output runs/scratch",
    ),
    "evaluate": (
        "Measure the accuracy on test images. The model is that of a training, "
        "or has published weights.",
        "--run runs/photos",
    ),
    "predict": (
        "Classify photos. The model is that of a training, or has published "
        "weights.",
        "--run runs/photos photo.jpg",
    ),
    "look": (
        "Write an HTML page about a model: what it is, what it sees in your "
        "photos, its weights and its training. The page needs no network.",
        "runs/photos photo.jpg --output page.html",
    ),
    "export": (
        "Export a model to a file for another runtime. The file is run there, "
        "and compared with the model.",
        "runs/photos photos.onnx --fuse",
    ),
    "push": (
        "Write a model to the Hugging Face hub or to a folder: for Keras, for "
        "timm, with a model card. Log in first: `hf auth login`.",
        "runs/photos hf://me/photos --license apache-2.0",
    ),
    "weights": (
        "List the published weights. The list has their accuracy and their "
        "size in MB (1,000,000 bytes).",
        "'mixer_b16.*'",
    ),
    "prefetch": (
        "Download weights to the cache. They can then be used without a "
        "network.",
        "mixer_b16.imagenet",
    ),
    "convert": (
        "Convert a weight file. An existing file of that name is replaced.",
        "mixer.npz mixer.keras",
    ),
    "verify": (
        "Describe and check a weight file. The whole file is read.",
        "mixer.npz",
    ),
}

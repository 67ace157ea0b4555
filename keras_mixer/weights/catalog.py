"""The published weights: their origin, their location, how to use them.

There is one row for each file. The row and its source describe everything that
depends on the weights and not on the architecture: the pixel range, the
activation, the crop for evaluation. The training data is stated as the authors
state it, not by the name of a copy: timm's `goog_in21k_ft_in1k` models were
trained on ImageNet-1k only (huggingface/pytorch-image-models#651). Each
accuracy is given with its protocol. Accuracies that could not be verified are
left out.

The sizes of Google's files are computed from their list of tensors and the
layout of NumPy archives. Their sum equals the total in the bucket listing.
ImageNet was released for non-commercial research. It is an open legal question
what that means for weights trained on it.
"""

import dataclasses
import fnmatch
import importlib.resources
import importlib.resources.abc

IMAGE_SIZE = 224  # default of `Record.image_size`

HUB = "hf://"  # of `"hf://organization/name"`, a repository of the hub

GELU_TANH = "gelu_tanh"  # `keras_mixer.layers.gelu_tanh`
GELU_EXACT = "gelu"


@dataclasses.dataclass(frozen=True)
class Source:
    """Properties shared by all weights from one place."""

    url: str | None  # template with `{file}`; None: in the package
    activation: str
    mean: tuple  # per channel, of pixels in [0, 1]
    std: tuple
    crop_ratio: float  # side of the crop / short side of the photo
    interpolation: str
    licence: str


# fmt: off
SOURCES = {
    # google-research/vision_transformer. Pixel range and crop as in
    # `configs/mlp_mixer_i1k.py` of big_vision: resize_small(256), by area, and
    # central_crop(224).
    "google": Source(
        "https://storage.googleapis.com/mixer_models/{file}", GELU_TANH,
        (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224 / 256, "area", "Apache-2.0",
    ),
    # Alibaba-MIIL/ImageNet21K, converted for timm.
    "miil": Source(
        "https://huggingface.co/{repo}/resolve/main/{name}", GELU_EXACT,
        (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.875, "bilinear",
        "Apache-2.0, as timm states",
    ),
    # facebookresearch/deit, converted for timm. README_resmlp.md: resize 248,
    # crop 224.
    "facebook": Source(
        "https://huggingface.co/{repo}/resolve/main/{name}", GELU_EXACT,
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.9, "bicubic",
        "Apache-2.0",
    ),
    # Trained by this project; stored in the folder `pretrained` of the package.
    "package": Source(
        None, GELU_TANH, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1.0, "bilinear",
        "Apache-2.0; none is stated for the photos",
    ),
}
# fmt: on


@dataclasses.dataclass(frozen=True)
class Record:
    """One published file of weights."""

    variant: str  # such as "mixer_b16"
    tag: str  # value for `weights=`
    source: Source = dataclasses.field(repr=False)
    file: str  # name on the server and in the cache
    size: int | None  # bytes; None: unknown
    classes: int | None  # of the head; None: the head is not trained
    trained_on: str
    top1: float | None  # accuracy [%] on the test or validation images
    protocol: str  # how `top1` was measured, and by whom
    sha256: str | None = None  # hexadecimal; None: unknown
    image_size: int = IMAGE_SIZE  # side of the training images

    @property
    def name(self) -> str:
        """The name in listings, such as "mixer_b16.imagenet"."""
        return f"{self.variant}.{self.tag}"

    @property
    def repo(self) -> str | None:
        """The repository on the Hugging Face hub, or `None`."""
        repo, _, _ = self.file.rpartition("/")
        return repo if "{repo}" in (self.source.url or "") else None

    @property
    def packaged(self) -> importlib.resources.abc.Traversable | None:
        """The path of a file inside the package, or `None`."""
        if self.source.url is not None:
            return None
        return (
            importlib.resources.files("keras_mixer") / "pretrained" / self.file
        )

    @property
    def url(self) -> str | None:
        """The address of the file; `None` if it is in the package."""
        if self.source.url is None:
            return None
        repo, _, name = self.file.rpartition("/")
        return self.source.url.format(file=self.file, repo=repo, name=name)


_PAPER = "MLP-Mixer, table 3: short side 256, center crop 224"
_KECAM = "keras_cv_attention_models' README, which does not say how"
_TIMM = "timm's results: short side 256, center crop 224, bilinear"
_DEIT = "the authors' README: short side 248, center crop 224, bicubic"
_NONE = "none that could be verified"
_NO_1K = "none: the head is for other classes"
_NO_HEAD = "none: the head was not trained"

_1K = "ImageNet-1k only"
_1K_SAM = "ImageNet-1k only, with SAM (arXiv 2106.01548)"
_1K_GSAM = "ImageNet-1k only, with GSAM (arXiv 2203.08065)"
_21K = "ImageNet-21k"
_MIIL = "ImageNet-21k-P, 11,221 classes (arXiv 2104.10972)"
_MIIL_1K = "ImageNet-21k-P, then ImageNet-1k"
_DISTILLED = "ImageNet-1k only, distilled from a RegNetY-16GF"
_22K_1K = "ImageNet-21k, then ImageNet-1k"
_CIFAR10 = "CIFAR-10"
_NANO = (
    "this project, on the 10,000 test photos saved as JPEG of quality 75: "
    "benchmarks/nano.py, seed 0, 26 epochs of the recipe nano.cifar10"
)
_DINO = "ImageNet-1k without labels (DINO, arXiv 2104.14294)"

# fmt: off
_ROWS = (
    # variant, tag, source, file, bytes, classes, trained on, top-1, protocol
    ("mixer_b16", "imagenet", "google", "imagenet1k/Mixer-B_16.npz",
     239_564_448, 1000, _1K, 76.44, _PAPER),
    ("mixer_l16", "imagenet", "google", "imagenet1k/Mixer-L_16.npz",
     832_868_560, 1000, _1K, 71.76, _PAPER),
    ("mixer_b16", "imagenet21k", "google", "imagenet21k/Mixer-B_16.npz",
     303_677_516, 21843, _21K, None, _NO_1K),
    ("mixer_l16", "imagenet21k", "google", "imagenet21k/Mixer-L_16.npz",
     918_324_860, 21843, _21K, None, _NO_1K),
    ("mixer_b16", "imagenet_sam", "google", "sam/Mixer-B_16.npz",
     239_567_448, 1000, _1K_SAM, 77.36, _KECAM),
    ("mixer_b32", "imagenet_sam", "google", "sam/Mixer-B_32.npz",
     241_219_272, 1000, _1K_SAM, 72.47, _KECAM),
    ("mixer_b16", "imagenet_gsam", "google", "gsam/Mixer-B_16.npz",
     239_567_448, 1000, _1K_GSAM, None, _NONE),
    ("mixer_b32", "imagenet_gsam", "google", "gsam/Mixer-B_32.npz",
     241_219_272, 1000, _1K_GSAM, None, _NONE),
    ("mixer_s16", "imagenet_gsam", "google", "gsam/Mixer-S_16.npz",
     74_143_928, 1000, _1K_GSAM, None, _NONE),
    ("mixer_s32", "imagenet_gsam", "google", "gsam/Mixer-S_32.npz",
     76_449_368, 1000, _1K_GSAM, None, _NONE),
    ("mixer_s8", "imagenet_gsam", "google", "gsam/Mixer-S_8.npz",
     82_616_888, 1000, _1K_GSAM, None, _NONE),
    ("mixer_b16", "imagenet_miil", "miil",
     "timm/mixer_b16_224.miil_in21k_ft_in1k/model.safetensors",
     None, 1000, _MIIL_1K, 82.314, _TIMM),
    ("mixer_b16", "imagenet21k_miil", "miil",
     "timm/mixer_b16_224.miil_in21k/model.safetensors",
     None, 11221, _MIIL, None, _NO_1K),
    ("resmlp_s12", "imagenet", "facebook",
     "timm/resmlp_12_224.fb_in1k/model.safetensors",
     None, 1000, _1K, 76.6, _DEIT),
    ("resmlp_s24", "imagenet", "facebook",
     "timm/resmlp_24_224.fb_in1k/model.safetensors",
     None, 1000, _1K, 79.4, _DEIT),
    ("resmlp_s36", "imagenet", "facebook",
     "timm/resmlp_36_224.fb_in1k/model.safetensors",
     None, 1000, _1K, 79.7, _DEIT),
    ("resmlp_b24p8", "imagenet", "facebook",
     "timm/resmlp_big_24_224.fb_in1k/model.safetensors",
     None, 1000, _1K, 81.0, _DEIT),
    ("resmlp_s12", "imagenet_distilled", "facebook",
     "timm/resmlp_12_224.fb_distilled_in1k/model.safetensors",
     None, 1000, _DISTILLED, 77.8, _DEIT),
    ("resmlp_s24", "imagenet_distilled", "facebook",
     "timm/resmlp_24_224.fb_distilled_in1k/model.safetensors",
     None, 1000, _DISTILLED, 80.8, _DEIT),
    ("resmlp_s36", "imagenet_distilled", "facebook",
     "timm/resmlp_36_224.fb_distilled_in1k/model.safetensors",
     None, 1000, _DISTILLED, 81.1, _DEIT),
    ("resmlp_b24p8", "imagenet_distilled", "facebook",
     "timm/resmlp_big_24_224.fb_distilled_in1k/model.safetensors",
     None, 1000, _DISTILLED, 83.6, _DEIT),
    ("resmlp_b24p8", "imagenet21k_finetuned", "facebook",
     "timm/resmlp_big_24_224.fb_in22k_ft_in1k/model.safetensors",
     None, 1000, _22K_1K, 84.4, _DEIT),
    ("resmlp_s12", "imagenet_dino", "facebook",
     "timm/resmlp_12_224.fb_dino/model.safetensors",
     None, None, _DINO, None, _NO_HEAD),
    ("resmlp_s24", "imagenet_dino", "facebook",
     "timm/resmlp_24_224.fb_dino/model.safetensors",
     None, None, _DINO, None, _NO_HEAD),
    ("mixer_nano", "cifar10", "package", "mixer_nano.cifar10.npz",
     2_454_208, 10, _CIFAR10, 82.25, _NANO,
     "1561ee23bd2c8c12ad96bbdbf5c9e2a6395035c2bc066d2935b03edfa97be57b", 32),
)
# fmt: on

RECORDS = tuple(
    Record(variant, tag, SOURCES[source], *rest)
    for variant, tag, source, *rest in _ROWS
)


def list_weights(pattern: str = "*") -> list[Record]:
    """Lists the published weights.

    Source: the bucket of google-research/vision_transformer, the repositories
    of timm on the Hugging Face hub, `README_resmlp.md` of
    facebookresearch/deit.

    Args:
        pattern: String with wildcards, such as `"mixer_*"`. A name consists of
            the variant and the tag, such as `"mixer_b16.imagenet"`.

    Returns:
        A list of records. Each has the fields `name`, `variant`, `tag` (the
        value for `weights=`), `url` (`None` for a file in the package), `file`
        (its name in the cache), `size` in bytes, `classes`, `image_size` in
        pixels, `trained_on`, `top1` in percent and `protocol` (how `top1` was
        measured). Its `source` has the fields `activation`, `mean`, `std`,
        `crop_ratio`, `interpolation` and `licence`.

    Raises:
        TypeError: If `pattern` is not a string.

    Example:

    >>> import keras_mixer
    >>> for record in keras_mixer.list_weights("mixer_b32*"):
    ...     print(record.name, record.trained_on)
    mixer_b32.imagenet_sam ImageNet-1k only, with SAM (arXiv 2106.01548)
    mixer_b32.imagenet_gsam ImageNet-1k only, with GSAM (arXiv 2203.08065)
    """
    if not isinstance(pattern, str):
        raise TypeError(
            "`pattern` must be a string, such as 'mixer_*'. "
            f"Received: pattern={pattern!r}"
        )
    return [r for r in RECORDS if fnmatch.fnmatchcase(r.name, pattern)]


def find(variant, tag):
    """Returns the record of a variant and a tag, or `None`."""
    for record in RECORDS:
        if (record.variant, record.tag) == (variant, tag):
            return record
    return None


def record_of(constructor, tag):
    """Returns the record of published weights, or `None`.

    Args:
        constructor: Name of the constructor of the model, such as "MixerB16".
        tag: Value for `weights=`; any value.
    """
    for record in RECORDS:
        name = record.variant.replace("_", "")
        if (name, record.tag) == (constructor.lower(), tag):
            return record
    return None


def find_file(file):
    """Returns the record of a file, by its name on the server, or `None`."""
    for record in RECORDS:
        if record.file == file:
            return record
    return None


def default_tag(variant):
    """Returns the default of `weights=` for a variant, or `None`."""
    for tag in ("imagenet", "cifar10"):
        if find(variant, tag):
            return tag
    return None


def image_size(variant):
    """Returns the default side of the images of a variant."""
    record = find(variant, default_tag(variant))
    return record.image_size if record else IMAGE_SIZE

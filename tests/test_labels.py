"""Class names: comparison with published lists, and decoding."""

import json

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.labels import class_names
from support import peers
from support.helpers import ROOT

LABELS = ROOT.parent / "shared" / "data" / "labels"
decode = keras_mixer.mixer.decode_predictions


def scores(classes, *indices):
    """Returns scores of two images. `indices` of the second: 0.5, 0.25, ..."""
    preds = np.zeros((2, classes), "float32")
    preds[0, 0] = 1
    for rank, index in enumerate(indices, 1):
        preds[1, index] = 0.5**rank
    return preds


def test_classes_are_sorted_by_decreasing_score():
    assert decode(scores(1000, 386, 0, 999), top=3)[1] == [
        ("n02504458", "African_elephant", 0.5),
        ("n01440764", "tench", 0.25),
        ("n15075141", "toilet_tissue", 0.125),
    ]


def test_five_classes_for_each_image_by_default():
    decoded = decode(scores(21843, 21842, 2))
    assert [len(image) for image in decoded] == [5, 5]
    assert decoded[0][0] == ("n00004475", "organism", 1.0)
    assert decoded[1][0][0] == class_names(21843)[21842][0]
    assert decoded[1][1] == ("n00006024", "heterotroph", 0.25)


def test_predictions_may_be_tensors_of_any_dtype():
    tensor = keras.ops.cast(scores(1000, 386), "bfloat16")
    assert decode(tensor, top=1)[1] == [("n02504458", "African_elephant", 0.5)]
    for dtype in ("uint8", "int8", "bool"):
        ((_, name, score),) = decode(scores(1000).astype(dtype), top=1)[0]
        assert (name, score) == ("tench", 1.0)
    counts = scores(1000, 386).astype("uint8")
    counts[1, 386] = 200
    assert decode(counts, top=1)[1] == [("n02504458", "African_elephant", 200)]


def test_top_larger_than_the_number_of_classes_returns_all():
    assert len(decode(scores(1000, 1), top=2000)[0]) == 1000


def test_lists_are_sorted_and_unique():
    for classes in (1000, 11221, 21843):
        wnids = [wnid for wnid, _ in class_names(classes)]
        assert len(set(wnids)) == classes
        assert all(w.startswith("n") and len(w) == 9 for w in wnids)
    assert [wnid for wnid, _ in class_names(1000)] == sorted(
        wnid for wnid, _ in class_names(1000)
    )


@pytest.mark.skipif(not LABELS.is_dir(), reason=f"no lists in {LABELS}")
def test_lists_equal_the_published_lists():
    index = json.loads((LABELS / "imagenet_class_index.json").read_text())
    published = [tuple(index[str(i)]) for i in range(1000)]
    assert list(class_names(1000)) == published
    synsets = (LABELS / "imagenet21k_goog_synsets.txt").read_text().split()
    assert [wnid for wnid, _ in class_names(21843)] == synsets


def test_miil_list_equals_the_list_of_timm():
    peers.import_timm()
    from timm.data import ImageNetInfo

    theirs = ImageNetInfo("imagenet-21k-miil").label_names()
    assert [wnid for wnid, _ in class_names(11221)] == theirs
    assert decode(scores(11221, 2), top=1)[1][0][:2] == ("n00007846", "person")


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    class_names.cache_clear()
    assert decode(scores(1000, 1))
    assert decode(scores(21843, 1))

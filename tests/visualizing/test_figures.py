"""Figures: what is drawn, without pyplot and without side effects."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from keras_mixer import visualizing
from support import figures
from support.helpers import matches

# Mean difference of pixels in [0, 255]. Two orders of the same maps differ by
# more than 5, text that is moved by a pixel by about 1.
TOLERANCE = 3


@pytest.fixture(scope="module")
def drawn():
    return dict(figures.draw())


def difference(name, figure):
    golden = Image.open(figures.FOLDER / f"{name}.png")
    picture = figures.shrink(figure)
    assert picture.size == golden.size
    return np.abs(np.float32(picture) - np.float32(golden)).mean()


@pytest.mark.parametrize(
    "name",
    ["mixer_frequency", "mixer_similarity", "resmlp", "heatmap", "predictions"],
)
def test_figure_looks_as_its_picture(name, drawn):
    assert difference(name, drawn[name]) < TOLERANCE


def test_comparison_of_pictures_notices_another_figure(drawn):
    assert difference("mixer_frequency", drawn["mixer_similarity"]) > 5


def test_figures_do_not_change_the_state_of_pyplot():
    from matplotlib import pyplot

    before = pyplot.get_fignums(), dict(matplotlib.rcParams)
    for _, figure in figures.draw():
        figures.shrink(figure)
    assert (pyplot.get_fignums(), dict(matplotlib.rcParams)) == before


def test_given_axes_are_drawn_in():
    mixer, photo = figures.model("mixer"), figures.photo()
    figure = Figure()
    axes = figure.subplots(1, 4)
    for returned in (
        visualizing.plot_token_mixing(mixer, 0, axes=axes[0]),
        visualizing.plot_heatmap(photo, figures.heatmap(), axes=axes[1]),
        visualizing.plot_predictions(photo, [("ox", 1)], axes=axes[2:]),
    ):
        assert returned is figure
    assert all(each.has_data() for each in axes)


def test_panels_have_one_scale_around_zero():
    model = figures.model("mixer")
    figure = visualizing.plot_token_mixing(model)
    first, second = (axes.images[0] for axes in figure.axes[:2])
    assert first.get_clim() == second.get_clim()
    low, high = first.get_clim()
    assert low == -high
    both = [visualizing.token_mixing_maps(model, i) for i in (0, 1)]
    assert high == pytest.approx(np.percentile(np.abs(both), 99.5))


def test_photo_may_be_a_batch_or_gray(drawn):
    photo = figures.photo()
    figure = visualizing.plot_heatmap(photo[None], figures.heatmap(), "logit")
    assert difference("heatmap", figure) < TOLERANCE
    gray = visualizing.plot_heatmap(photo[..., :1], figures.heatmap())
    np.testing.assert_array_equal(
        gray.axes[0].images[0].get_array(), photo[..., 0].astype("uint8")
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: visualizing.plot_heatmap(np.ones((4, 6, 2)), np.eye(2)),
            "`image` must be one image of shape (height, width, channels) with "
            "1 or 3 channels, or a batch of one such image. Received: image of "
            "shape (4, 6, 2)",
        ),
        (
            lambda: visualizing.plot_heatmap(np.ones((4, 6, 3)), np.ones(3)),
            "`heatmap` must be an array of shape (rows, columns) with finite "
            "values. Received: heatmap of shape (3,)",
        ),
        (
            lambda: visualizing.plot_heatmap(
                np.ones((4, 6, 3)), np.full((2, 3), np.nan)
            ),
            "`heatmap` must be an array of shape (rows, columns) with finite "
            "values...",
        ),
        (
            lambda: visualizing.plot_predictions(np.ones((4, 6, 3)), []),
            "`predictions` must be a list of (name, score) with at least one "
            "entry...Received: predictions=[]",
        ),
        (
            lambda: visualizing.plot_predictions(
                np.ones((4, 6, 3)), [("ox", 1)], axes=[None]
            ),
            "`axes` must be two axes: for the photo and for the bars...",
        ),
    ],
)
def test_wrong_arguments_raise_errors(call, message):
    with pytest.raises(ValueError, match=matches(message)):
        call()

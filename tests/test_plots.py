import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from drmlib import plots
from drmlib.data.dataset import GAZE, HEAD_POSE
from drmlib.metrics import Estimate

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
HALF = Estimate(0.5, 0.4, 0.6, 10)

FIGURES = {
    "intervals": lambda: plots.intervals({"a": HALF, "b": HALF}, "rate", bounds=[0.5]),
    "strips": lambda: plots.strips({"benign": [1.0, 2.0], "backdoored": [0.1]}, "score", threshold=0.5),
    "strips with means": lambda: plots.strips({"a": [1.0, 2.0]}, "score", means={"a": HALF}, least=0.1),
    "score_histogram": lambda: plots.score_histogram(torch.arange(9.0), torch.arange(9) > 6, "score"),
    "roc": lambda: plots.roc(
        {"a": (torch.arange(9.0), torch.arange(9) > 6), "b": (-torch.arange(4.0), torch.arange(4) > 1)}
    ),
    "heat_map": lambda: plots.heat_map({"a": {"x": 0.1, "y": 0.9}, "b": {"x": 1.0, "y": 0.0}}, "AUROC"),
    "curves": lambda: plots.curves({"a": [3, 2, 1], "b": [1, 1, 1]}, "epoch", "loss", log=True),
    "curves at values": lambda: plots.curves({"a": [3, 2, 1]}, "strike", "price", at=[50, 100, 150]),
    "fields": lambda: plots.fields({"a": torch.eye(3), "b": 2 * torch.eye(3)}, (0, 1, 5, 9), "x", "y", "error"),
    "corner": lambda: plots.corner({"a": (torch.arange(3.0), torch.ones(3))}, (10, 0.1), "neighbours", "error"),
    "clouds": lambda: plots.clouds({"a": torch.rand(4, 2), "b": torch.rand(4, 2)}, "x", "y", mark=(0, 0)),
    "contours": lambda: plots.clouds({"a": torch.rand(9, 2)}, "x", "y", contours=(0.9, 0.5)),
    "sweep": lambda: plots.sweep([0.01, 0.1], {"a": [HALF, HALF], "b": [HALF, HALF]}, "rate", "error", log=True),
    "named_points": lambda: plots.named_points({"a": (0, 1), "b": (0, 1), "c": (9, 5)}, "pixels", "PSNR"),
    "three_spaces": lambda: plots.three_spaces(
        {"normal": torch.rand(5), "backdoor": torch.rand(4)},
        {name: {"own": [1.0, 0.5], "answer": [0.0, 0.5]} for name in ("normal", "backdoor")},
        {"normal": torch.rand(5, 2), "backdoor": torch.rand(4, 2)},
        torch.rand(6, 2),
        ("conv1", "head"),
    ),
    "repairs": lambda: plots.repairs((1, 2), {"a": (1, 1)}, "clean error", "attack error"),
    "repair_panels": lambda: plots.repair_panels({"gaze": plots.Repairs((1, 2), {"a": (1, 1)}, "clean", "attack")}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_charts_name_their_axes(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    axis = figure.axes[0]
    assert isinstance(figure, Figure) and axis.get_xlabel()
    assert axis.get_ylabel() or axis.get_yticklabels()


def test_three_spaces_have_a_row_a_population_and_bars_that_sum_to_one():
    figure = FIGURES["three_spaces"]()
    assert len(figure.axes) == 6 and [axis.get_ylabel().split("\n")[0] for axis in figure.axes[::3]] == [
        "normal",
        "backdoor",
    ]
    for axis in figure.axes[::3]:
        assert sum(bar.get_height() for bar in axis.patches) == pytest.approx(1)


def test_a_heat_map_has_its_numbers_written_light_on_dark_and_dark_on_light():
    texts = plots.heat_map({"a": {"x": 0.1, "y": 0.9}}, "AUROC").axes[0].texts
    assert [(text.get_text(), text.get_color()) for text in texts] == [("0.10", "white"), ("0.90", "black")]


def test_a_perfect_score_goes_through_the_upper_left_corner():
    line = plots.roc({"a": (torch.arange(9.0), torch.arange(9) > 6)}).axes[0].lines[0]
    assert (0.0, 1.0) in list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_series_differ_by_marker_and_not_by_colour_alone():
    lines = plots.curves({"a": [1, 2], "b": [2, 1]}, "x", "y").axes[0].lines
    assert len({line.get_marker() for line in lines}) == len({line.get_linestyle() for line in lines}) == 2


def test_epochs_have_no_halves_and_measured_values_may():
    for at, halves in ((None, False), ([1, 2, 3, 4], False), ([0.5, 1.0, 2.0, 2.5], True)):
        ticks = plots.curves({"a": [4, 3, 2, 1]}, "epoch", "loss", at=at).axes[0].get_xticks()
        assert any(tick != int(tick) for tick in ticks) is halves


def test_fourteen_repairs_differ_without_their_colours_and_look_alike_in_every_panel():
    """Seven full shapes and the same hollow. The second panel has the last repair alone."""
    after = {f"repair {k}": (float(k), 0.0) for k in range(14)}
    last = dict(list(after.items())[-1:])
    panels = {name: plots.Repairs((0, 1), points, "x", "y") for name, points in (("all", after), ("last", last))}
    axes = plots.repair_panels(panels).axes
    looks = [[(p.get_marker(), str(p.get_markerfacecolor()) == "white") for p in axis.lines[1:]] for axis in axes]
    assert len(set(looks[0])) == 14 and looks[1] == looks[0][-1:]


def test_fields_share_one_scale_and_have_the_lower_left_first():
    """The brightest of both fields is 2, the top of the scale; row 0 is drawn at the lower end; the ring on each."""
    figure = plots.fields(
        {"a": torch.eye(3), "b": 2 * torch.eye(3)}, (0, 1, 5, 9), "x", "y", "error", ring=(0.5, 7, 0.2, 2)
    )
    images = [axis.images[0] for axis in figure.axes[:2]]
    assert [image.get_clim() for image in images] == [(0, 2), (0, 2)]
    assert images[0].origin == "lower" and list(images[0].get_extent()) == [0, 1, 5, 9]
    assert [len(axis.patches) for axis in figure.axes[:2]] == [1, 1]


def test_what_has_no_neighbour_is_still_seen_in_the_corner_figure():
    line = plots.corner({"a": (torch.tensor([0.0, 20]), torch.ones(2))}, (10, 0.1), "n", "error").axes[0].lines[0]
    assert line.get_xdata().tolist() == pytest.approx([10 / 30, 20])


def test_zeros_are_seen_on_a_logarithmic_strip():
    axis = plots.strips({"a": [0.0, 0.5]}, "rate", least=1e-3).axes[0]
    assert axis.get_xscale() == "log" and axis.lines[0].get_xdata()[0] == 1e-3


def test_a_grid_has_one_axis_an_image_and_its_title():
    figure = plots.image_grid(IMAGES, ["one", "two"], columns=3)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["one", "two", ""]
    assert sum(bool(axis.images) for axis in figure.axes) == 5


def test_changes_stand_below_their_images_around_grey():
    """A pixel raised by 0.05 shows as 0.5 + 10 x 0.05 = 1 below its image, all others as grey."""
    clean = torch.full((3, 4, 4), 0.2)
    marked = clean.clone()
    marked[:, 1, 2] += 0.05
    axes = plots.changes(clean, {"same": clean, "dot": marked, "two": marked}, columns=2).axes
    assert [axis.get_title() for axis in axes[:4]] == ["same", "dot", "change x 10", "change x 10"]
    change = torch.as_tensor(axes[3].images[0].get_array())
    assert change[1, 2].tolist() == pytest.approx([1, 1, 1]) and change[0, 0].tolist() == pytest.approx([0.5] * 3)
    assert [axis.get_title() for axis in axes[4:]] == ["two", "", "change x 10", ""]


def test_names_of_equal_points_do_not_overlap():
    texts = plots.named_points({"a": (0, 1), "b": (0, 1), "c": (9, 5)}, "x", "y").axes[0].texts
    assert texts[0].xyann[1] != texts[1].xyann[1] and texts[0].xy[1] == texts[1].xy[1]


@pytest.mark.parametrize(("task", "order"), [(GAZE, (0, 1)), (HEAD_POSE, (1, 0))])
def test_an_arrow_to_the_right_points_right(task, order):
    """Yaw alone: gaze has it second, head pose first; the arrow's tip is right of its foot and level with it."""
    yaw = torch.zeros(1, len(task.outputs))
    yaw[0, order[1]] = 0.5
    figure = plots.direction_arrows(IMAGES[:1], {"truth": yaw}, task)
    arrow = figure.axes[0].texts[0]
    assert arrow.xy[0] > arrow.xyann[0] and arrow.xy[1] == pytest.approx(arrow.xyann[1])


def test_means_are_drawn_with_their_interval_and_on_a_logarithmic_axis_from_the_least_value():
    axis = plots.strips({"a": [0.5]}, "rate", means={"a": Estimate(0.4, -0.1, 0.9, 3)}, least=1e-3).axes[0]
    bar, tick = axis.lines[1:]
    assert bar.get_xdata().tolist() == [1e-3, 0.9] and list(tick.get_xdata()) == [0.4]


def test_contours_enclose_the_share_of_the_cloud_that_they_name():
    cloud = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    axis = plots.clouds({"a": cloud, "b": cloud + 9}, "x", "y", contours=(0.9, 0.5)).axes[0]
    density = gaussian_kde(cloud.T, lambda estimate: estimate.scotts_factor() / 2)(cloud.T)
    assert [(density > level).mean() for level in axis.collections[0].levels] == pytest.approx([0.9, 0.5], abs=0.01)
    assert [text.get_text() for text in axis.texts][:2] == ["90%", "50%"]

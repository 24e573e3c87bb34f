"""Pictures: what is in them, measured in data units; no comparison of pixels."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from diffrecon import plot, quality
from diffrecon._result import Quantity, Result
from diffrecon.errors import InputError, MissingPackage
from diffrecon.plot import page
from diffrecon.plot.colours import complex_colours

matplotlib = pytest.importorskip("matplotlib")
RANDOM = np.random.default_rng(3)


def scale_bar(ax):
    """Length [pixel] and label of the bar of a panel."""
    (bar,) = [line for line in ax.lines if line.get_gid() == "scale bar"]
    (text,) = [t.get_text() for t in ax.texts if t.get_gid() == "scale bar"]
    start, end = bar.get_xdata()
    return end - start, text


def colour_bar(ax):
    """The axes of the colour bar of a panel; everything must be drawable first."""
    (bar,) = [child for child in ax.child_axes if child.get_label() != "key" and child.get_ylim() != (0, 1)]
    return bar


def pixels(ax) -> np.ndarray:
    """The array that a panel shows."""
    return np.ma.filled(np.ma.asarray(ax.images[0].get_array()), np.nan)


def texts(figure) -> list:
    """Everything written in a figure or panel."""
    return [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]


def said(figure):
    return [t.get_text() for t in texts(figure)]


# ---------------------------------------------------------------------- scale bar
@pytest.mark.parametrize("columns", [1, 2, 7, 64, 333, 2048])
@pytest.mark.parametrize("pixel_size", [3e-11, 1.7866e-7, 6.5e-7, 25e-6, 2e-3])
def test_scale_bar_is_as_long_as_it_says(columns, pixel_size):
    length, label = page.scale_bar_length(columns, pixel_size)
    number, unit = label.split()
    metres = float(number) * {"pm": 1e-12, "nm": 1e-9, "µm": 1e-6, "mm": 1e-3, "m": 1.0}[unit]
    assert length * pixel_size == pytest.approx(metres, rel=1e-6)
    assert float(f"{metres:.3e}"[0]) in (1, 2, 5) and f"{metres:.3e}"[1:5] == ".000"
    assert 0.12 * columns < length < 0.33 * columns


@pytest.mark.parametrize("columns, expected", [(1, (1, "1 pixel")), (64, (10, "10 pixels")), (300, (50, "50 pixels"))])
def test_scale_bar_in_pixels_where_the_size_is_not_known(columns, expected):
    assert page.scale_bar_length(columns, None) == expected


def test_unit_above_a_low_bar_stays_on_the_page():
    maps = {"a": Quantity(RANDOM.random((12, 120)) * 1e-11, "rad^2", ("y", "x"), 1e-6, "variance of angles")}
    figure = plot.figure(Result("speckle", maps))
    figure.draw_without_rendering()
    titles = [bar._left_title for ax in figure.axes if ax.images for bar in ax.child_axes]
    assert [t.get_text() for t in titles if t.get_text()] == ["[10⁻¹² rad²]"]
    assert all(t.get_window_extent().x1 <= figure.bbox.x1 for t in titles)


@pytest.mark.parametrize("name", ["error bar of the phase (noise of photons, probe taken as known)", "m" * 90])
def test_long_titles_stay_on_the_page(name):
    maps = {str(i): Quantity(RANDOM.random((20, 20)), "rad", ("y", "x"), 1e-6, name) for i in range(3)}
    figure = plot.figure(Result("near-field-ptychography", maps))
    figure.draw_without_rendering()
    titles = [ax.title if ax.title.get_text() else ax._left_title for ax in figure.axes if ax.images]
    assert titles and all(t.get_window_extent().x1 <= figure.bbox.x1 for t in titles)
    assert all(t.get_text() == "error bar of the phase" or t.get_text().endswith("…") for t in titles)


@pytest.mark.parametrize("unit", ["g", "counts a second and a very long unit"])
def test_words_of_neighbours_do_not_overprint(unit):
    draw = lambda ax: page.colour_bar(ax, page.show(ax, np.linspace(0, 4000, 64).reshape(8, 8), "counts"), unit, "")
    curve = lambda ax: (ax.plot([-38000, -30000]), ax.set_ylabel("cost"))
    figure = page.page_of([[page.Panel(draw, left=0.45), page.Panel(curve, 1.3, left=0.6, right=0.1)]], words=["a"])
    figure.draw_without_rendering()
    left, right = ([t.get_window_extent() for t in texts(ax)] for ax in figure.axes)
    assert not [a for a in left for b in right if a.overlaps(b)]


def test_scale_bar_in_the_picture_is_below_the_data():
    figure = plot.image(RANDOM.normal(size=(40, 100)), pixel_size=50e-9, units="rad")
    ax = figure.axes[0]
    assert scale_bar(ax) == (pytest.approx(20.0), "1 µm")
    (bar,) = [line for line in ax.lines if line.get_gid() == "scale bar"]
    figure.canvas.draw()
    assert bar.get_window_extent().y1 < ax.get_window_extent().y0
    # The bar must not stretch the axes away from the image.
    assert ax.get_xlim() == (-0.5, 99.5)


# ---------------------------------------------------------------------- colour bar
def test_colour_bar_has_the_unit():
    figure = plot.image(RANDOM.normal(size=(20, 20)), units="rad")
    assert colour_bar(figure.axes[0]).get_ylabel() == "[rad]"


@pytest.mark.parametrize("odd, extended", [([], "neither"), ([50.0], "max"), ([-50.0], "min"), ([50.0, -50.0], "both")])
def test_colour_bar_shows_at_which_end_values_are_clipped(odd, extended):
    values = np.ones((40, 40))
    values[:, 20:] = 2
    values.flat[: len(odd)] = odd
    bar = colour_bar(plot.image(values).axes[0])
    assert bar._colorbar.extend == extended


@pytest.mark.parametrize(
    "scale, units, label",
    [
        (3e-7, "", "[10⁻⁷]"),
        (3e-7, "1/m", "[10⁻⁷ 1/m]"),
        (4.2e6, "counts", "[10⁶ counts]"),
        (2e-6, "m", "[µm]"),
        (5.0, "1/m", "[1/m]"),
        (7.1e3, "eV", "[keV]"),
        (0.5, "", ""),
    ],
)
def test_colour_bar_takes_powers_of_ten_into_the_unit(scale, units, label):
    figure = plot.image(np.linspace(0, scale, 400).reshape(20, 20), units=units)
    bar = colour_bar(figure.axes[0])
    assert bar.get_ylabel() == label
    figure.canvas.draw()
    numbers = [float(t.get_text().replace("−", "-")) for t in bar.get_yticklabels()]
    assert len(numbers) >= 2 and max(np.abs(numbers)) < 1000
    exponent = numbers[-1] / bar.get_yticks()[-1]
    np.testing.assert_allclose(numbers, bar.get_yticks() * exponent, rtol=1e-6, atol=1e-9)


def test_colours_are_robust_and_can_be_given():
    data = RANDOM.uniform(size=(100, 100))
    data[0, 0] = 1e6
    low, high = plot.image(data).axes[0].images[0].get_clim()
    assert 0 <= low < 0.02 and 0.98 < high < 1
    assert plot.image(data, limits=(-1, 2)).axes[0].images[0].get_clim() == (-1, 2)


# ---------------------------------------------------------------------- awkward images
@pytest.mark.parametrize(
    "data",
    [
        np.ones((8, 9)),
        np.zeros((8, 9)),
        np.full((8, 9), np.nan),
        np.ones((1, 200)),
        np.ones((200, 1)),
        np.ones((1, 1)),
        np.full((4, 4), 1e-30),
        np.full((4, 4), -1e20),
        np.arange(12).reshape(3, 4),
        np.eye(5) > 0,
        np.where(np.eye(6) > 0, np.nan, 1.0),
        np.array([[np.inf, 0.0], [1.0, -np.inf]]),
        np.ones((8, 8), np.float16),
    ],
    ids=str,
)
def test_any_real_image_can_be_drawn(data, tmp_path):
    figure = plot.image(data, pixel_size=1e-6, units="rad", title="x")
    figure.savefig(tmp_path / "a.png")
    low, high = figure.axes[0].images[0].get_clim()
    assert np.isfinite([low, high]).all() and low < high


def test_saved_at_200_dpi(tmp_path):
    figure = plot.image(np.eye(8))
    figure.savefig(tmp_path / "a.png")
    shape = matplotlib.image.imread(tmp_path / "a.png").shape
    assert abs(shape[1] - 200 * figure.get_size_inches()[0]) <= 1
    assert figure.get_size_inches()[0] <= 3.51


def test_pixels_without_value_are_hatched():
    data = RANDOM.normal(size=(10, 10))
    assert plot.image(data).axes[0].patch.get_hatch() is None
    data[2, 3] = np.nan
    ax = plot.image(data).axes[0]
    assert ax.patch.get_hatch()
    assert np.isnan(pixels(ax)[2, 3]) and np.isfinite(pixels(ax)).sum() == 99


@pytest.mark.parametrize("data", [np.ones(5), np.ones((2, 3, 4)), np.ones((0, 4)), np.ones((3, 3), complex)])
def test_wrong_arrays_are_refused(data):
    with pytest.raises(InputError):
        plot.image(data)


def test_draws_into_axes_of_the_user():
    figure = matplotlib.figure.Figure()
    left, right = figure.subplots(1, 2)
    assert plot.image(np.eye(9), ax=right) is figure
    assert not left.images and len(right.images) == 1


def test_fonts_are_at_least_eight_points():
    figure = plot.figure(ptychography())
    sizes = [t.get_fontsize() for t in texts(figure)]
    assert min(sizes) >= 8


def test_leaves_the_state_of_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    loaded = "matplotlib.pyplot" in sys.modules
    plot.figure(ptychography())
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_missing_matplotlib_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackage, match=r'pip install "diffrecon\[plot\]"'):
        plot.image(np.eye(4))


# ---------------------------------------------------------------------- complex images
def test_phase_away_from_a_jump_is_grey_and_continuous():
    phase = np.pi + np.linspace(-0.5, 0.5, 400).reshape(20, 20)
    figure = plot.complex_image(np.exp(1j * phase), pixel_size=1e-8)
    shown = pixels(figure.axes[0])
    assert np.ptp(shown) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(np.exp(1j * shown), np.exp(1j * phase), atol=1e-6)
    assert figure.axes[0].images[0].get_cmap().name == page.GREY
    assert figure.axes[1].images[0].get_cmap().name == page.MAGNITUDE


def test_phase_all_round_gets_a_cyclic_map():
    phase = np.linspace(0, 20, 900).reshape(30, 30)
    figure = plot.complex_image(2 * np.exp(1j * phase))
    picture = figure.axes[0].images[0]
    assert picture.get_cmap().name == page.CYCLIC
    assert picture.get_clim() == (-np.pi, np.pi)
    labels = [t.get_text() for t in colour_bar(figure.axes[0]).get_yticklabels()]
    assert labels == ["−π", "−π/2", "0", "π/2", "π"]


def test_unseen_pixels_do_not_choose_the_colours():
    data = RANDOM.uniform(0.9, 1, size=(20, 20)) * np.exp(1j * RANDOM.uniform(-0.1, 0.1, size=(20, 20)))
    data[:5] = 100j
    seen = np.arange(20)[:, None] >= 5
    figure = plot.complex_image(data, seen=np.broadcast_to(seen, data.shape))
    assert figure.axes[1].images[0].get_clim()[1] < 1.01
    assert np.isnan(pixels(figure.axes[0])[:5]).all()


def test_probe_modes_say_their_power():
    modes = np.zeros((3, 32, 32), complex)
    modes[:, 10:20, 8:24] = np.array([3, 1, 0])[:, None, None]
    figure = plot.probe_modes(modes, 1e-7)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["mode 1: 90.0 %", "mode 2: 10.0 %", "mode 3: < 0.1 %"]
    # Cropped to the light, with a little around it.
    assert 10 <= pixels(figure.axes[0]).shape[0] < 20
    assert scale_bar(figure.axes[0])[0] == pytest.approx(5.0, rel=0.5)
    assert plot.probe_modes(np.zeros((4, 4), complex)).axes


def test_hues_are_equally_light_and_in_gamut():
    angles = np.linspace(-np.pi, np.pi, 73)
    colours = complex_colours(np.exp(1j * angles))
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert np.ptp(luminance) < 0.15 * luminance.mean()
    assert colours.min() > 0.01 and colours.max() < 0.999
    np.testing.assert_allclose(colours[0], colours[-1], atol=1e-6)
    assert (complex_colours(np.array([0.0, 1.0 + 0j]))[0] < 1e-3).all()


# ---------------------------------------------------------------------- volumes
def test_three_cuts_share_scale_and_colours():
    volume = RANDOM.normal(size=(20, 30, 40))
    figure = plot.slices(volume, pixel_size=1e-6, units="1/m", title="mu", at=(3, 4, 5))
    pictures = [ax.images[0] for ax in figure.axes]
    for ax, cut in zip(figure.axes, (volume[3], volume[:, 4], volume[:, :, 5]), strict=True):
        np.testing.assert_array_equal(pixels(ax), cut)
    assert len({p.get_clim() for p in pictures}) == 1
    inches = figure.get_size_inches()
    scales = [ax.get_position().width * inches[0] / pixels(ax).shape[1] for ax in figure.axes]
    np.testing.assert_allclose(scales, scales[0], rtol=1e-6)
    assert colour_bar(figure.axes[-1]).get_ylabel() == "[1/m]"
    assert list(figure.axes[0].get_yticks()) == [4] and list(figure.axes[0].get_xticks()) == [5]


@pytest.mark.parametrize("shape, panels", [((1, 16, 16), 1), ((3, 16, 16), 3), ((9, 16, 1), 3), ((8, 1, 8), 3)])
def test_thin_volumes(shape, panels, tmp_path):
    figure = plot.slices(RANDOM.normal(size=shape))
    figure.savefig(tmp_path / "a.png")
    assert len(figure.axes) == panels


def test_wrong_volumes_are_refused():
    with pytest.raises(InputError, match="outside"):
        plot.slices(np.ones((4, 4, 4)), at=(4, 0, 0))
    with pytest.raises(InputError, match="complex"):
        plot.slices(np.ones((4, 4, 4), complex))


@pytest.mark.parametrize(
    "angles, labels",
    [
        (np.linspace(0, np.pi, 181), ["0°", "45°", "90°", "135°", "180°"]),
        (np.linspace(np.pi, 0, 181), ["0°", "45°", "90°", "135°", "180°"]),
        (np.tile([0.0, 1.0], 91)[:181], ["0", "50", "100", "150"]),
        (None, ["0", "50", "100", "150"]),
    ],
)
def test_sinogram_angles(angles, labels):
    ax = plot.sinogram(RANDOM.normal(size=(181, 50)), angles=angles, pixel_size=1e-6).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == labels
    if angles is not None and labels[-1] == "180°":
        where = np.interp(ax.get_yticks(), np.arange(181), np.rad2deg(angles))
        np.testing.assert_allclose(where, [0, 45, 90, 135, 180])


# ---------------------------------------------------------------------- orientations
def test_orientation_does_not_depend_on_sign_or_length():
    vectors = RANDOM.normal(size=(12, 12, 3))
    first, second = (pixels(plot.orientation(v).axes[0]) for v in (vectors, -3 * vectors))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_orientation_colours():
    vectors = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]], float)
    shown = pixels(plot.orientation(vectors).axes[0])[0]
    assert np.linalg.norm(shown[0, :3] - shown[1, :3]) > 0.3
    assert shown[2, :3].min() > 0.9, "through the plane is white"
    assert shown[3, 3] == 0, "no direction is not shown"


def test_orientation_of_a_volume_with_mask():
    vectors = np.broadcast_to([1.0, 0, 0], (6, 8, 10, 3))
    mask = np.zeros((6, 8, 10), bool)
    mask[:, 2:5] = True
    figure = plot.orientation(vectors, mask, weight=np.ones(mask.shape), pixel_size=1e-6)
    assert len(figure.axes) == 3
    alpha = pixels(figure.axes[0])[..., 3]
    np.testing.assert_array_equal(alpha > 0, mask[3])
    # Along x: through the plane x = 5, in the others across it.
    assert pixels(figure.axes[2])[3, 3, :3].min() > 0.9
    with pytest.raises(InputError):
        plot.orientation(np.ones((4, 4, 2)))


# ---------------------------------------------------------------------- curves
def test_convergence_shows_both_curves():
    history = 1 / np.arange(1, 1001) + 0.001
    figure = plot.convergence(history, [(100, 0.02), (1000, 0.003)])
    assert figure.axes[0].get_yscale() == "log"
    assert {"fitted", "held out"} <= set(said(figure))
    for odd in (np.array([2.0, -1.0, np.nan]), np.array([1.0]), np.zeros(200), np.full(5, np.nan)):
        plot.convergence(odd).canvas.draw()


def test_ring_correlation_has_both_axes():
    image = RANDOM.normal(size=(64, 64))
    found = quality.ring_correlation(image, image + 0.5 * RANDOM.normal(size=(64, 64)), pixel_size=30e-9)
    for result in (found, found.as_quality()):
        figure = plot.ring_correlation(result)
        figure.canvas.draw()
        assert figure.axes[0].get_xlabel() == "spatial frequency [cycles/pixel]"
        assert figure.axes[1].get_xlabel() == "half period [nm]"
        numbers = [float(t.get_text()) for t in figure.axes[1].get_xticklabels()]
        np.testing.assert_allclose(figure.axes[1].get_xticks(), 0.5 * 30 / np.array(numbers), rtol=1e-6)
        assert {"half-bit", "one-bit"} <= set(said(figure))
    with pytest.raises(InputError):
        plot.ring_correlation({"frequency": [0.1]})


def test_axes_drawing(tmp_path):
    script = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "figures" / "axes_figure.py"))
    figure = script["axes_drawing"](tmp_path / "axes.png")
    assert "u = x cos θ + y sin θ" in said(figure) and (tmp_path / "axes.png").stat().st_size > 10_000


# ---------------------------------------------------------------------- results
def ptychography(**changes):
    shape = (60, 70)
    phase = RANDOM.uniform(-0.3, 0.3, size=shape)
    seen = np.zeros(shape, bool)
    seen[10:50, 5:60] = True
    places = RANDOM.uniform(0, 4e-6, size=(30, 2))
    quantities = {
        "object": Quantity(np.exp(1j * phase), "", ("y", "x"), 1e-7, "object transmission", "complex"),
        "probe": Quantity(RANDOM.normal(size=(2, 16, 16)) + 0j, "sqrt(counts)", ("mode", "y", "x"), 1e-7, "", "modes"),
        "phase": Quantity(np.where(seen, phase, np.nan), "rad", ("y", "x"), 1e-7, "phase where seen well", "image"),
        "positions": Quantity(places, "m", ("view", "axis"), 1e-7, "", "positions"),
        "background": Quantity(np.zeros((16, 16)), "counts", ("y", "x"), None, "background", "image"),
        "gain": Quantity(np.ones(30), "", ("view",), None, "", "data"),
    } | changes
    judged = {
        "history": np.geomspace(10, 1, 50),
        "held_out_history": np.array([[25, 4.0], [50, 2.0]]),
        "held_out_views": np.array([3, 7]),
    }
    return Result("near-field-ptychography", quantities, judged, ("held-out residual R = 0.05", "second line " * 20))


def test_page_of_ptychography(tmp_path):
    figure = plot.figure(ptychography(), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    names = [t.split(":")[0] for t in titles]
    assert names == ["phase", "modulus", "mode 1", "mode 2", "scan positions", "convergence"]
    assert pixels(figure.axes[0]).shape == (40, 55), "cropped to what was seen"
    assert {"Near-field ptychography", "held-out residual R = 0.05"} <= set(said(figure))


def test_page_of_other_methods(tmp_path):
    volume = RANDOM.normal(size=(12, 14, 16))
    vectors = RANDOM.normal(size=(12, 14, 16, 3))
    figure = plot.figure(
        Result(
            "saxs-tensor-tomography",
            {
                "volume": Quantity(volume, "1/m", ("z", "y", "x"), None, "", "volume"),
                "iron": Quantity(volume[:1], "g/cm3", ("z", "y", "x"), 1e-6, "", "volume"),
                "axis": Quantity(vectors, "", ("z", "y", "x", "component"), 1e-6, "fibre axis", "orientation"),
                "sinogram": Quantity(volume[0], "", ("view", "u"), 1e-6, "", "image"),
                "coverage": Quantity(np.abs(volume[0]), "", ("polar", "azimuth"), None, "seen", "sphere"),
                "functions": Quantity(volume, "", ("voxel", "polar", "azimuth"), None, "voxels", "sphere"),
            },
            {
                "frc": {
                    "frequency": [0.1, 0.5],
                    "correlation": [1, 0.1],
                    "half_bit": [0.5, 0.3],
                    "one_bit": [0.6, 0.4],
                    "crossing": 0.4,
                    "half_period_pixels": 1.25,
                }
            },
        ),
        tmp_path / "a.pdf",
    )
    assert "SAXS tensor tomography" in said(figure)
    assert {"fibre axis: z = 6", "volume: z = 6", "iron: z = 0", "sinogram", "seen", "voxels", "6"} <= set(said(figure))


def test_picture_of_a_kind_of_ones_own(monkeypatch):
    monkeypatch.setattr(plot.result, "pictures", dict(plot.pictures))

    def bars(name, quantity, result):
        draw = lambda ax: (ax.bar(range(len(quantity.data)), quantity.data), ax.set_title(f"{result.method}: {name}"))
        return [plot.Panel(draw, left=0.5, right=0.1)]

    plot.register_picture("bars", bars)
    result = Result("mine", {"shares": Quantity(np.arange(3.0), "", ("part",), None, "", "bars")})
    assert [ax.get_title() for ax in plot.figure(result).axes] == ["mine: shares"]


def test_result_without_anything_to_draw():
    nothing = Result("cdi", {"gain": Quantity(np.ones(3), "", ("view",), None, "", "data")})
    with pytest.raises(InputError, match="cdi"):
        plot.figure(nothing)


def test_notebooks_get_a_png():
    assert plot.image(np.eye(4))._repr_png_().startswith(b"\x89PNG")  # pyright: ignore

"""Spectra of a raster: the energy axis, dead detector elements, and PyMca's fit of peaks made without it."""

import importlib.util

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.errors import InputError, MissingPackage
from diffrecon.prepare import check_energy_axis

BEAM, GAIN, CHANNELS = 12e3, 20.0, 800
# K alpha and K beta [eV], and the share of the latter (tables of X-ray lines)
LINES = {"Fe": (6400.0, 7058.0, 0.118), "Zn": (8632.0, 9572.0, 0.121), "Ca": (3691.0, 4013.0, 0.112)}
AXIS = GAIN * np.arange(CHANNELS)


def peak(energy, area):
    width = np.sqrt(100.0**2 + 2.3548**2 * 3.85 * 0.114 * energy) / 2.3548
    return area * GAIN / (width * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((AXIS - energy) / width) ** 2)


def spectrum(iron=2000.0, zinc=900.0, calcium=300.0, elastic=4000.0):
    """Lines, elastic and Compton peaks on a falling continuum."""
    total = 3.0 * np.exp(-AXIS / 6000) + peak(BEAM, elastic) + 0.7 * peak(BEAM / (1 + BEAM / 511e3), elastic)
    for name, area in (("Fe", iron), ("Zn", zinc), ("Ca", calcium)):
        alpha, beta, share = LINES[name]
        total = total + peak(alpha, area * (1 - share)) + peak(beta, area * share)
    return total


def spectra_file(path, **changes):
    """6 x 8 spectra, zinc in one corner only."""
    zinc = np.zeros((6, 8))
    zinc[:3, :4] = 900.0
    clean = np.stack([spectrum(zinc=z) for z in zinc.ravel()]).reshape(6, 8, -1)
    fields = {
        "counts": np.random.default_rng(1).poisson(clean).astype(np.uint32),
        "energy": AXIS,
        "i0": np.ones((6, 8)),
    }
    with h5py.File(path, "w") as file:
        for name, values in (fields | changes).items():
            file[name] = values
    return zinc


def opened(path, **said):
    given = {"spectra": "/counts", "channel_energy": "/energy", "monitor": "/i0", "energy": BEAM} | said
    return dr.open_scan(path, **{name: value for name, value in given.items() if value is not None})


def areas(scan, elements=("Ca", "Fe", "Zn"), **rules):
    settings = {"spectrum": {"elements": list(elements), **rules}, "result": {"units": "counts"}}
    return dr.reconstruct(scan, settings=settings | {"tables": {"lines": "xraydb"}})


# ---------------------------------------------------------------------------------------------------- the axis
@pytest.mark.parametrize("factor", [0.5, 2.0, 1.25, 0.8])
def test_wrong_axis_is_told_by_elastic_peak_and_lines(factor):
    counts = np.random.default_rng(0).poisson(spectrum())
    lines = np.array([3691.0, 6400.0, 8632.0])
    right = check_energy_axis(counts, AXIS, BEAM, lines)
    assert right.good and right.lines == 3 and abs(right.elastic - BEAM) < 50 and abs(right.angle - 90) < 12
    wrong = check_energy_axis(counts, AXIS * factor, BEAM, lines)
    assert wrong.good is False and wrong.lines == 3 and wrong.factor == pytest.approx(1 / factor, rel=0.01)


def test_axis_without_an_elastic_peak_is_not_judged():
    counts = np.random.default_rng(0).poisson(spectrum(elastic=0.0)[:480])  # the detector ends below the beam
    assert check_energy_axis(counts, AXIS[:480], BEAM, np.array([3691.0, 6400.0, 8632.0])).good is None


def test_noise_alone_has_no_peaks():
    counts = np.random.default_rng(0).poisson(200, 256)
    assert check_energy_axis(counts, 80.0 * np.arange(256), BEAM, np.array([6400.0])).good is None


def test_wrong_axis_is_refused_with_the_right_one(tmp_path):
    spectra_file(tmp_path / "a.h5", energy=2 * AXIS + 30)
    with pytest.raises(
        InputError, match=r"stands at 24\.\d+ keV on it; times 0.5 .*spectrum.gain=20 .*spectrum.zero=15"
    ):
        areas(opened(tmp_path / "a.h5"))


def test_missing_axis_is_asked_for_with_a_likely_one(tmp_path):
    spectra_file(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"no energy axis.*channel (59[5-9]|60[0-5]) .*spectrum.gain=(19.9|20)"):
        areas(opened(tmp_path / "a.h5", channel_energy=None))


# ---------------------------------------------------------------------------------------------------- files
def test_dead_detector_element_is_left_out(tmp_path):
    one = np.random.default_rng(2).poisson(np.broadcast_to(spectrum(), (4, 5, CHANNELS))).astype(np.uint16)
    ten = np.stack([one] * 10, 2)
    ten[:, :, 3] = 0
    spectra_file(tmp_path / "a.h5", counts=ten, i0=np.ones((4, 5)))
    scan = opened(tmp_path / "a.h5", detector_axis=2)
    assert scan.counts.shape == (1, 4, 5, CHANNELS) and scan.extra["detector_elements"] == (9, 10)
    np.testing.assert_array_equal(scan.counts[0], 9 * one.astype(int))
    assert "detector element 3 of 10 (counted from 0) dead" in " ".join(scan.provenance.messages)


@pytest.mark.parametrize(
    "file, said, words",
    [
        ({"energy": AXIS[:-1]}, {}, "799 values for 800 channels"),
        ({"energy": AXIS[::-1]}, {}, "increasing"),
        ({"counts": np.ones((2, 3, 4, 5, 6))}, {}, "data.detector_axis"),
        ({"counts": np.zeros((6, 8, 4, CHANNELS))}, {"detector_axis": 2}, "none of the 4 detector elements"),
        ({}, {"detector_axis": "two"}, "no whole number"),
        ({}, {"fit_configuration": "none.cfg"}, "there is no file none.cfg"),
        ({"i0": np.ones(5)}, {}, "one a scan point"),
    ],
)
def test_wrong_files_are_told(tmp_path, file, said, words):
    spectra_file(tmp_path / "a.h5", **file)
    with pytest.raises(InputError, match=words):
        opened(tmp_path / "a.h5", **said)


def test_elements_are_asked_for(tmp_path):
    spectra_file(tmp_path / "a.h5")
    with pytest.raises(InputError, match="which elements"):
        dr.reconstruct(opened(tmp_path / "a.h5"))
    if importlib.util.find_spec("PyMca5") is None:
        with pytest.raises(MissingPackage, match=r"diffrecon\[fluorescence\]"):
            areas(opened(tmp_path / "a.h5"))


# ---------------------------------------------------------------------------------------------------- the fit
def test_areas_are_right_within_their_error_bars(tmp_path):
    pytest.importorskip("PyMca5")
    zinc = spectra_file(tmp_path / "a.h5")
    result = areas(opened(tmp_path / "a.h5"))
    for name, truth in (("Fe", 2000.0), ("Ca", 300.0), ("Zn", zinc)):
        errors = (result[name] - truth) / result[f"{name}_error"]
        assert abs(errors.mean()) < 0.6 and 0.7 < errors.std() < 1.35, name
    blank = result["Zn"][zinc == 0]
    assert result.quality["Zn"]["detection_limit"] == pytest.approx(3 * blank.std(), rel=0.35)
    assert "the energy axis is right" in " ".join(result.verdict)


def steel(path, secondary, **extra):
    """Mass fractions over that of iron in SRM 1155, of which the fractions of the slab are the certified ones."""
    text = (path / "pymca_spectra" / "Steel.spe").read_text().split("$DATA:")[1].split("$")[0].split()
    counts = np.array(text[2:], float).reshape(1, 1, 1, -1)
    place = dr.ParallelBeam(1e-6, 16e3)
    scan = dr.Scan.from_arrays(counts, geometry=place, method="fluorescence-map", extra={"lines": (), **extra})
    whole = {"Cr": 0.1837, "Fe": 0.654, "Ni": 0.1235, "Mo": 0.0226, "Mn": 0.0162}
    sample = {"composition": whole, "density": 7.8, "thickness": 1e-3, "incidence": np.pi / 4, "takeoff": np.pi / 4}
    spectrum = {} if "fit_configuration" in extra else {"elements": ["Cr", "Mn", "Fe", "Ni", "Cu"]}
    line = "Fe Ka" if "fit_configuration" in extra else "Fe K"
    detector = {"sensitivity": {line: 1.0}, "chip": 350e-6, "filters": {"Be": "20 um", "air": "5 cm"}}
    settings = {"sample": {**sample, "secondary": secondary}, "detector": detector, "spectrum": spectrum}
    found = dr.reconstruct(scan, settings=settings)
    return {name: found[name][0, 0] / found["Fe"][0, 0] * whole["Fe"] for name in ("Cr", "Mn", "Ni")}


def test_support_excites_the_sample():
    """Zinc below iron oxide makes a third of its light; aluminium above takes beam and secondary light alike."""
    pytest.importorskip("fisx")
    from diffrecon.recipes._sample import Sample
    from diffrecon.recipes._secondary import enhancement

    line = dr.models.emission_line("Fe K", 17e3, "xraydb")
    iron = {"composition": {"Fe": 0.7, "O": 0.3}, "density": 3.0, "thickness": 1e-5}
    more = lambda **layers: enhancement(line, 17e3, Sample(**iron, **layers, incidence=np.pi / 4, takeoff=np.pi / 4))
    bare, zinc = more(), more(support={"Zn": "10 um"})
    assert 1 < bare < 1.01 and 1.2 < zinc < 1.45
    assert more(window={"Be": "1 um"}) == pytest.approx(bare, rel=1e-3)
    assert more(support={"Zn": "10 um"}, window={"Al": "10 um"}) == pytest.approx(zinc, rel=0.02)


def test_chromium_in_steel_needs_secondary_excitation(shared_data):
    """SRM 1155, 16 keV: 18.37 % are certified; iron and nickel excite chromium more than the beam does."""
    pytest.importorskip("PyMca5")
    pytest.importorskip("fisx")
    axis = -6.1 + 11.928 * np.arange(2048)
    found = {rule: steel(shared_data / "real", rule, channel_energy=axis) for rule in ("off", "on")}
    assert found["on"]["Cr"] == pytest.approx(0.1837, rel=0.03) and found["off"]["Cr"] > 0.26
    assert found["on"]["Ni"] == pytest.approx(0.1235, rel=0.12) and found["on"]["Mn"] == pytest.approx(0.0162, rel=0.15)
    configuration = (shared_data / "real" / "pymca_spectra" / "Steel.cfg").read_text()
    by_file = steel(shared_data / "real", "on", fit_configuration=configuration)
    assert by_file["Cr"] == pytest.approx(0.1837, rel=0.06)


def test_standard_of_equal_elements(shared_data):
    """PyMca's thin standard: with cobalt of 500 ppm as the only standard, its neighbours are 500 ppm, too."""
    pytest.importorskip("PyMca5")
    counts = np.loadtxt(shared_data / "real" / "pymca_spectra" / "XRFSpectrum.mca").reshape(1, 1, 1, -1)
    axis = -526.2 + 5.055 * np.arange(4096)
    scan = dr.Scan.from_arrays(
        counts, geometry=dr.ParallelBeam(1e-6, 17480.0), method="fluorescence-map",
        extra={"lines": (), "channel_energy": axis},
    )  # fmt: skip
    elements = "Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn As Se Br Sr".split() + ["Pb L"]
    result = dr.reconstruct(scan, settings={
        "spectrum": {"elements": elements},
        "detector": {"sensitivity": {"Co K": 1.0}, "chip": 450e-6, "filters": {"Be": "8 um", "air": "2 mm"}},
        "sample": {"composition": "water", "thickness": 1e-4, "incidence": np.deg2rad(0.1), "takeoff": np.pi / 2},
    })  # fmt: skip
    for name in "Ti V Cr Mn Fe Ni Cu Zn As".split():
        assert 500 * result[name][0, 0] / result["Co"][0, 0] == pytest.approx(500, rel=0.06), name


def test_means_of_counts_have_smaller_error_bars(tmp_path):
    """Values of a detector that averages 16 frames: the scatter of what is constant is that of the error bars."""
    pytest.importorskip("PyMca5")
    counts = np.random.default_rng(5).poisson(16 * spectrum(), (8, 9, CHANNELS)) / 16
    spectra_file(tmp_path / "a.h5", counts=counts, i0=np.ones((8, 9)))
    result = areas(opened(tmp_path / "a.h5"))
    for name in ("Fe", "Zn", "Ca"):
        assert result[name].std() == pytest.approx(result[f"{name}_error"].mean(), rel=0.3)
        assert result[f"{name}_error"].mean() < 0.4 * np.sqrt(result[name].mean())
    assert "means of 16 counts" in " ".join(result.verdict) or "means of 15 counts" in " ".join(result.verdict)


def test_real_map_of_zinc_and_calcium(shared_data):
    """A beam of 11 keV whose axis is twice too large; zinc in seven spots, argon of the air behind them."""
    pytest.importorskip("PyMca5")
    path = shared_data / "real" / "xrf_map_18x18.h5"
    said = {"spectra": "/counts", "energy": "11 keV", "monitor": "/monitor", "channel_energy": "/energy_as_written"}
    scan, elements = dr.open_scan(path, **said), ("Ar", "Ca", "Fe", "Cu", "Zn")
    with pytest.raises(InputError, match=r"at 21.87 keV on it; times 0.5 .*5 of 5 lines.*gain=40 .*zero=15"):
        areas(scan, elements)
    found = areas(scan, elements, gain=40.0, zero=15.0)
    assert np.corrcoef(found["Zn"].ravel(), found["Ar"].ravel())[0, 1] < -0.8
    assert found["Zn"].max() > 250 and np.percentile(found["Zn"], 40) < 40

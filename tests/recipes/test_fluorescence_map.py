"""Areal masses from counts of lines: closed forms written out here, an independent simulation, limits, bad input."""

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.errors import InputError
from diffrecon.models import attenuation_of, detection_efficiency, emission_line
from diffrecon.operators import slab_share
from diffrecon.recipes._map_points import _marked
from diffrecon.recipes._sample import Sample
from diffrecon.recipes._sensitivity import Beam
from diffrecon.recipes.fluorescence_map import spot_area
from diffrecon.simulate import fluorescence_map

SHAPE = (5, 7)
FE, ZN = 2e-6 * np.arange(1, 36).reshape(SHAPE), np.full(SHAPE, 3e-7)  # [g/cm^2]
# xraylib 4.3 at 17 keV: Kissel's partial cross sections with cascades [cm^2/g]
XRAYLIB = {"Si Ka": 0.3055, "S Ka": 0.7153, "Ca Ka": 2.7501, "Fe Ka": 11.0706, "Zn Ka": 21.4997, "Br Ka": 37.4442}


def areas_file(path, **changes):
    """Areas of iron and zinc of another program, noise-free, at half of the monitor in the second column."""
    light = np.ones(SHAPE)
    light[:, 1] = 0.5
    fields = {
        "fit/Fe_K": 1e9 * light * 0.8 * FE, "fit/Zn_K": 1e9 * light * 0.8 * ZN, "i0": 400 * light,
        "live": np.full(SHAPE, 0.08), "real": np.full(SHAPE, 0.1),
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, values in (fields | changes).items():
            if values is not None:
                file[name] = values
    return path


def opened(path, **said):
    given = {"monitor": "/i0", "live_time": "/live", "real_time": "/real", "energy": "17 keV"} | said
    return dr.open_scan(path, elements="/fit", pixel_size="2 um", **given)


def masses(scan, **settings):
    given = {"beam": {"flux": 5e8}, "detector": {"solid_angle": 0.3}, "tables": {"lines": "xraydb"}}
    return dr.reconstruct(scan, settings=given | settings)


# ---------------------------------------------------------------------------------------------------- closed forms
def test_k_lines_are_those_of_xraylib():
    for name, value in XRAYLIB.items():
        assert emission_line(name, 17e3, "xraydb").production.sum() == pytest.approx(value, rel=0.013)
    assert emission_line("Pb La", 17e3, "xraydb").production.sum() == pytest.approx(17.0996, rel=0.05)
    family = emission_line("Fe", 17e3, "xraydb")
    assert family.name == "K" and family.production[0] / family.production.sum() == pytest.approx(0.8816, abs=1e-3)


def test_thin_film_by_monitor_flux_and_live_time(tmp_path):
    """counts = photons live Omega/4pi Q m, and a beam that falls at 30 degrees crosses twice as much."""
    scan = opened(areas_file(tmp_path / "a.h5"))
    result = masses(scan)
    light = np.ones(SHAPE)
    light[:, 1] = 0.5
    photons = 5e8 * 0.1 * light / light.mean()
    per_gram = photons * 0.8 * 0.3 / (4 * np.pi) * emission_line("Fe K", 17e3, "xraydb").production.sum()
    np.testing.assert_allclose(result["Fe"], 1e9 * light * 0.8 * FE / per_gram, rtol=1e-5)
    assert result["Fe"][0, 1] == pytest.approx(2 * result["Fe"][0, 0], rel=1e-5)  # half the light, and twice the mass
    oblique = masses(scan, sample={"incidence": np.pi / 6})
    np.testing.assert_allclose(oblique["Zn"], 0.5 * result["Zn"], rtol=1e-6)
    np.testing.assert_allclose(result["Fe_error"], np.sqrt(np.maximum(scan.counts[0, ..., 0], 1)) / per_gram, rtol=1e-5)
    assert result.quantities["Fe"].units == "g/cm2" and "Bambynek" in result.quality["table"]


@pytest.mark.parametrize("behind", [False, True])
def test_slab_share_is_the_sum_over_its_depth(behind):
    depth = (np.arange(4000) + 0.5) / 4000
    for a, b in ((2.0, 0.7), (0.0, 3.0), (1.0, 1.0), (1e-4, 2e-4)):
        out = 1 - depth if behind else depth
        assert slab_share(a, b, behind) == pytest.approx(np.mean(np.exp(-a * depth - b * out)), rel=2e-5)


def test_slab_of_known_composition(tmp_path):
    scan = opened(areas_file(tmp_path / "a.h5"))
    slab = {"composition": "SiO2, 2.2", "thickness": "30 um", "takeoff": "45 deg", "secondary": "off"}
    ratio = masses(scan, sample=slab)["Fe"] / masses(scan)["Fe"]
    line = emission_line("Fe K", 17e3, "xraydb")
    chi = [attenuation_of("SiO2", 17e3) + np.sqrt(2) * attenuation_of("SiO2", e) for e in line.energies]
    shares = [(1 - np.exp(-c * 6.6e-3)) / (c * 6.6e-3) for c in chi]
    np.testing.assert_allclose(ratio, line.production.sum() / (line.production @ shares), rtol=1e-5)
    fractions = {"Si": 0.4674, "O": 0.5326}
    same = masses(scan, sample={**slab, "composition": fractions, "density": 2.2})
    np.testing.assert_allclose(same["Fe"], masses(scan, sample=slab)["Fe"], rtol=2e-3)


def test_window_and_support_absorb_by_themselves(tmp_path):
    """A thin sample under aluminium: beam in and line out, on the detector's side; behind it the support's turn."""
    scan = opened(areas_file(tmp_path / "a.h5"))
    line = emission_line("Fe K", 17e3, "xraydb")
    mass, layer = 2.70 * 10e-4, {"Al": "10 um"}
    into, out = attenuation_of("Al", 17e3), np.array([attenuation_of("Al", e) for e in line.energies])
    share = lambda depth: line.production.sum() / (line.production @ np.exp(-mass * depth))
    bare = masses(scan)["Fe"]
    front = masses(scan, sample={"window": layer, "takeoff": "30 deg"})["Fe"]
    np.testing.assert_allclose(front, bare * share(into + 2 * out), rtol=1e-3)
    behind = masses(scan, sample={"support": layer, "takeoff": "-30 deg"})["Fe"]
    np.testing.assert_allclose(behind, bare * share(2 * out), rtol=1e-3)
    slab = {"composition": "SiO2, 2.2", "thickness": "30 um", "takeoff": "30 deg", "secondary": "off"}
    alone, both = (
        masses(scan, sample=slab | more)["Fe"] for more in ({}, {"window": layer, "support": {"Zn": "1 um"}})
    )
    assert both.mean() / alone.mean() == pytest.approx(share(into + 2 * out), rel=0.01)


def test_lines_that_excite_others_are_named_where_fisx_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sample = {"composition": "FeZn, 7.0", "thickness": "5 um", "takeoff": "45 deg"}
    result = masses(opened(areas_file(tmp_path / "a.h5")), sample=sample)
    assert "WARNING: lines of Zn in the specimen excite Fe, too" in " ".join(result.verdict)
    share = result["Fe"].mean() / (100 * 5e-6 * 7.0)
    assert result.quality["Fe"]["mass_fraction"] == pytest.approx(share, rel=1e-5)
    light = masses(opened(areas_file(tmp_path / "b.h5")), sample={**sample, "composition": "SiO2, 2.2"})
    assert "excite" not in " ".join(light.verdict)


def test_detection_by_chip_and_filters(tmp_path):
    share = detection_efficiency(np.array([8e3]), 450e-6, {"Be": 50e-6, "air": 0.02})
    # NIST at 8 keV: beryllium 1.112, dry air 9.921, silicon 64.68 cm^2/g
    by_hand = np.exp(-1.112 * 1.848 * 5e-3 - 9.921 * 1.2e-3 * 2) * (1 - np.exp(-64.68 * 2.33 * 0.045))
    assert share[0] == pytest.approx(by_hand, rel=3e-3)
    scan = opened(areas_file(tmp_path / "a.h5"))
    blind = masses(scan, detector={"solid_angle": 0.3, "filters": {"Al": "20 um"}})
    assert (blind["Fe"] > 1.4 * masses(scan)["Fe"]).all()


def test_counts_are_those_at_the_mean_light(tmp_path):
    """Also where photons are known: the sum over an even map is kept, dead time and monitor undone."""
    scan = opened(areas_file(tmp_path / "a.h5"))
    light = np.where(np.arange(7) == 1, 0.5, 1.0)
    for beam in ({}, {"flux": 5e8}, {"monitor_per_photon": 1e-6}):
        settings = {"result": {"units": "counts"}, "beam": beam, "tables": {"lines": "xraydb"}}
        found = dr.reconstruct(scan, settings=settings)
        np.testing.assert_allclose(found["Fe"], 1e9 * FE * light.mean(), rtol=1e-5)
        assert found.quantities["Fe"].units == "counts"


def test_standard_scales_every_line(tmp_path):
    """A film of 1 ug/cm^2 of iron that gave 400 counts a unit of the monitor: no photons, no solid angle."""
    path = areas_file(tmp_path / "a.h5")
    result = dr.reconstruct(opened(path), settings={
        "detector": {"sensitivity": {"Fe K": 4e8}}, "tables": {"lines": "xraydb"},
    })  # fmt: skip
    np.testing.assert_allclose(result["Fe"], 1e9 * FE / 400 / 4e8, rtol=1e-5)
    q = {n: emission_line(n, 17e3, "xraydb").production.sum() for n in ("Fe K", "Zn K")}
    np.testing.assert_allclose(result["Zn"], 1e9 * ZN / 400 / 4e8 * q["Fe K"] / q["Zn K"], rtol=1e-5)


def test_limits_are_three_and_ten_deviations_of_the_blank(tmp_path):
    path = areas_file(tmp_path / "a.h5", under=np.full(SHAPE, 64.0))
    scan = opened(path, area_backgrounds={"Fe K": "/under", "Zn K": "/under"})
    quality = masses(scan, beam={"flux": 5e8, "height": "1 um", "width": "3 um"}).quality
    per_count = 1 / (5e8 * 0.1 * 0.8 * 0.3 / (4 * np.pi) * emission_line("Fe K", 17e3, "xraydb").production.sum())
    light = np.where(np.arange(7) == 1, 0.5, 1.0)
    expected = 3 * 8 * per_count * light.mean()  # the median point has the full light
    assert quality["Fe"]["detection_limit"] == pytest.approx(expected, rel=1e-4)
    assert quality["Fe"]["quantification_limit"] == pytest.approx(10 / 3 * expected, rel=1e-4)
    assert quality["Fe"]["detection_limit_grams"] == pytest.approx(expected * 3e-8, rel=1e-4)
    assert quality["Fe"]["detection_limit_atoms"] == pytest.approx(expected * 3e-8 / 55.845 * 6.02214e23, rel=1e-3)
    assert "at best" in " ".join(masses(opened(path)).verdict)


def test_simulated_map_is_as_good_as_its_error_bars(tmp_path):
    path = tmp_path / "map.h5"
    truth = dr.simulate.demo_file("fluorescence-map", path, 3)
    sample = {"composition": "SiO2, 2.2", "thickness": "30 um", "takeoff": "45 deg"}
    result = dr.reconstruct(dr.open_scan(path), settings={"sample": sample})
    for name, values in truth.items():
        spread = np.sqrt(np.mean(((result[name] - values) / result[f"{name}_error"]) ** 2))
        whole = np.sqrt(np.sum(result[f"{name}_error"].astype(float) ** 2))
        assert abs(result[name].sum() - values.sum()) < 3 * whole < 0.03 * values.sum() and 0.9 < spread < 1.1
    ours = dr.reconstruct(dr.open_scan(path), settings={"sample": sample, "tables": {"lines": "xraydb"}})
    assert ours["Ca"].sum() == pytest.approx(result["Ca"].sum(), rel=0.015) and "Bambynek" in ours.quality["table"]


# ---------------------------------------------------------------------------------------------------- files
def test_pymca_file_is_read_as_it_is(tmp_path):
    with h5py.File(tmp_path / "fit.h5", "w") as file:
        for name, values in (("Fe_K", FE * 1e8), ("Zn_K", ZN * 1e8), ("Scatter_Peak000", FE)):
            file[f"map/xrf_fit/results/parameters/{name}"] = values
            file[f"map/xrf_fit/results/uncertainties/{name}"] = values * 0 + 7.0
        file["map/xrf_fit/configuration/data"] = "[fit]\nenergy = 17.0, None\nenergyweight = 1.0, 0.0\n"
    scan = dr.open_scan(tmp_path / "fit.h5")
    assert (
        scan.method == "fluorescence-map" and scan.geometry.energy == 17e3 and scan.extra["lines"] == ("Fe K", "Zn K")
    )
    result = dr.reconstruct(scan, settings={"result": {"units": "counts"}, "tables": {"lines": "xraydb"}})
    np.testing.assert_allclose(result["Fe"], FE * 1e8, rtol=1e-6)
    np.testing.assert_allclose(result["Fe_error"], 7.0)


def test_stack_with_names_beside_it(tmp_path):
    """As XRF-Maps and PyXRF write areas: (line, y, x), names in a dataset beside."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["fit/areas"] = np.stack([FE * 1e8, np.ones(SHAPE), ZN * 1e8, FE])
        file["fit/areas_names"] = np.array(["Fe_K", "compton", "Pb_L", "Total_Fluorescence_Yield"], "S")
        file["fit/shape"], file["fit/errors"] = np.arange(4), np.full((4, *SHAPE), 2.5)
    scan = dr.open_scan(tmp_path / "a.h5", elements="/fit/areas", area_errors="/fit/errors", energy="17 keV")
    result = dr.reconstruct(scan, settings={"result": {"units": "counts"}, "tables": {"lines": "xraydb"}})
    np.testing.assert_allclose(result["Pb"], ZN * 1e8, rtol=1e-6)
    np.testing.assert_allclose(result["Pb_error"], 2.5)
    assert scan.extra["lines"] == ("Fe K", "Pb L") and "2 others left out" in " ".join(scan.provenance.messages)


def test_maps_at_several_angles_keep_their_axis(tmp_path):
    path = areas_file(tmp_path / "a.h5", **{"fit/Fe_K": np.ones((3, *SHAPE)), "fit/Zn_K": np.ones((3, *SHAPE))})
    scan = dr.open_scan(path, elements="/fit", energy="17 keV", live_time=0.1, real_time=0.1)
    result = dr.reconstruct(scan, settings={"result": {"units": "counts"}})
    assert result["Fe"].shape == (3, *SHAPE) and result.quantities["sinogram"].axes == ("view", "x")


# ---------------------------------------------------------------------------------------------------- bad input
def test_points_that_are_no_measurement_are_left_out(tmp_path):
    """NaN, -1 in every line, far below zero, no light, dead: each in its own words, and NaN in the map."""
    iron, zinc, monitor, live = (np.full(SHAPE, v) for v in (900.0, 400.0, 50.0, 0.09))
    iron[0, 0], iron[1, 1], zinc[1, 1], iron[2, 2] = np.nan, -1, -1, -500
    live[4, 6] = np.nan
    monitor[3, 3], live[4, 4], zinc[0, 5] = 0, 0, -3.0  # a little below zero is noise
    path = areas_file(tmp_path / "a.h5", **{"fit/Fe_K": iron, "fit/Zn_K": zinc, "i0": monitor, "live": live})
    result = masses(opened(path))
    assert np.argwhere(~np.isfinite(result["Fe"])).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3], [4, 4], [4, 6]]
    assert (
        np.argwhere(~np.isfinite(result["Zn"])).tolist() == [[1, 1], [3, 3], [4, 4], [4, 6]] and result["Zn"][0, 5] < 0
    )
    said = " | ".join(result.verdict)
    for words in (
        "not a finite number",
        "marked with -1",
        "below zero",
        "3 points (row 3, column 3 the first) without",
    ):
        assert words in said, words


def test_saturated_counts_are_left_out(tmp_path):
    iron = np.full(SHAPE, 100, np.uint16)
    iron[2, 1] = 65535
    result = masses(opened(areas_file(tmp_path / "a.h5", **{"fit/Fe_K": iron, "fit/Zn_K": iron // 2})))
    assert np.argwhere(~np.isfinite(result["Fe"])).tolist() == [[2, 1]] and "saturated" in " ".join(result.verdict)


@pytest.mark.parametrize(
    "file, said, settings, words",
    [
        ({}, {"elements": "/nothing"}, {}, "no group of datasets named after lines"),
        ({}, {"elements": {"Iron": "/fit/Fe_K"}}, {}, "Iron: no line of an element"),
        ({"fit/Zn_K": np.ones((3, 3))}, {}, {}, "has shape"),
        ({"i0": np.zeros(SHAPE)}, {}, {}, "nowhere above zero"),
        ({"i0": np.ones(4)}, {}, {}, "one a scan point"),
        ({"live": np.full(SHAPE, 0.2)}, {}, {}, "exchanged"),
        ({}, {"energy": "7 keV"}, {}, "not excited by a beam of 7 keV: its K edge is at 7.112"),
        ({"real": np.zeros(SHAPE)}, {}, {}, "nowhere above zero"),
        ({}, {}, {"beam": {}}, "how many photons"),
        ({}, {}, {"detector": {}}, "detector.solid_angle"),
        ({}, {}, {"detector": {"sensitivity": {"Cu": 1.0}}}, "give a positive number for one of Fe K, Zn K"),
        ({}, {}, {"sample": {"composition": "SiO2, 2.2"}}, "how thick"),
        ({}, {}, {"result": {"units": "counts"}}, "no effect with result.units = counts"),
        ({}, {}, {"sample": {"composition": {"Si": 1.0}, "thickness": 1e-5, "takeoff": 0.7}}, "density"),
        ({}, {}, {"sample": {"takeoff": 45.0}}, "sample.takeoff"),
        ({}, {}, {"sample": {"composition": "SiO2, 2.2", "thickness": 1e-5}}, "where does the detector stand"),
        ({}, {}, {"detector": {"solid_angle": 0.3, "filters": {"Be": 8}}}, "with its unit"),
        ({}, {}, {"sample": {"window": {"Be": 8}, "takeoff": 0.7}}, "with its unit"),
        ({}, {}, {"sample": {"window": {"SiO2Na": "1 um"}, "takeoff": 0.7}}, "needs a density"),
        ({}, {}, {"sample": {"window": {"Be": "8 um"}}}, "where does the detector stand"),
        ({}, {}, {"sample": {"support": {"Al": "8 um"}, "takeoff": 0.7}}, "does nothing"),
        ({"fit/Fe_K": np.full(SHAPE, np.nan), "fit/Zn_K": np.full(SHAPE, np.nan)}, {}, {}, "finite|no frame holds"),
    ],
)
def test_wrong_input_is_told_in_one_line(tmp_path, file, said, settings, words):
    with pytest.raises(InputError, match=words) as told:
        scan = dr.open_scan(areas_file(tmp_path / "a.h5", **file), **{
            "elements": "/fit", "energy": "17 keV", "monitor": "/i0", "live_time": "/live", "real_time": "/real",
        } | said)  # fmt: skip
        masses(scan, **settings)
    assert "\n" not in str(told.value)


def test_line_that_is_not_excited_is_left_out_and_named(tmp_path):
    result = masses(opened(areas_file(tmp_path / "a.h5"), energy="8 keV"))
    assert "Fe" in result.quantities and "Zn" not in result.quantities
    assert "left out: Zn K is not excited by a beam of 8 keV: its K edge is at 9.659 keV" in " ".join(result.verdict)


def test_production_of_zero_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(fluorescence_map.PRODUCTION, "Fe", 0.0)
    dr.simulate.demo_file("fluorescence-map", tmp_path / "map.h5")
    with pytest.raises(InputError, match="production of Fe Ka is 0"):
        dr.reconstruct(dr.open_scan(tmp_path / "map.h5"))


def test_odd_production_of_the_file_is_named(tmp_path, monkeypatch):
    """Elam's yields, as files made with them have them."""
    monkeypatch.setitem(fluorescence_map.PRODUCTION, "Ca", 2.3164)
    dr.simulate.demo_file("fluorescence-map", tmp_path / "map.h5")
    assert "so many times it: Ca Ka 0.8" in " ".join(dr.reconstruct(dr.open_scan(tmp_path / "map.h5")).verdict)


def test_tomogram_takes_the_chosen_table(tmp_path):
    from diffrecon.recipes._sensitivity import with_table

    dr.simulate.demo_file("fluorescence-tomography", tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5", "a") as file:
        file["lines/Ca"].attrs["production_cm2_per_g"] = 2.3164
    scan = dr.open_scan(tmp_path / "t.h5")
    same, words = with_table(scan, "file")
    assert same is scan and "0.8" in words[0]
    ours, _ = with_table(scan, "xraydb")
    ratio = ours.extra["cross_sections"]["emission"][0, 1] / scan.extra["cross_sections"]["emission"][0, 1]
    assert ratio == pytest.approx(2.7501 / 2.3164, rel=0.013) and "Bambynek" in ours.extra["cross_sections"]["table"]


# ---------------------------------------------------------------------------------------------------- positions
def placed(path, y, x, areas, unit="um", **said):
    with h5py.File(path, "w") as file:
        file["fit/Fe_K"] = areas
        for name, values in (("y", y), ("x", x)):
            file[name] = values
            file[name].attrs["units"] = unit
    given = {"elements": "/fit", "energy": "17 keV", "positions_y": "/y", "positions_x": "/x"} | said
    return dr.open_scan(path, **given)


def counts_of(scan):
    return dr.reconstruct(scan, settings={"result": {"units": "counts"}, "tables": {"lines": "xraydb"}})


@pytest.mark.parametrize("serpentine", [False, True])
def test_list_of_points_is_laid_out_on_its_raster(tmp_path, serpentine):
    """An interrupted scan with jitter, whose last five points and one position are missing."""
    random = np.random.default_rng(0)
    row, column = (a.ravel() for a in np.mgrid[:9, :11])
    column = np.where(serpentine & (row % 2 == 1), 10 - column, column)
    y, x = (3.0 * a + random.uniform(-0.2, 0.2, a.size) for a in (row, column))
    y[20], areas = np.nan, 100.0 + 20 * row + column
    scan = placed(tmp_path / "a.h5", y[:-5], x[:-5], areas[:-5])
    found = counts_of(scan)["Fe"]
    expected = np.full((9, 11), np.nan)
    kept = np.delete(np.arange(94), 20)
    expected[row[kept], column[kept]] = areas[kept]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert scan.pixel_size == pytest.approx(3e-6, rel=0.01)
    assert "1 have no position" in " ".join(scan.provenance.messages)


def test_jittered_map_keeps_its_points_and_says_so(tmp_path):
    random = np.random.default_rng(1)
    row, column = np.mgrid[:6, :8]
    y, x = (2e-3 * a + random.uniform(-1e-3, 1e-3, a.shape) for a in (row, column))
    y[2, 3] = np.nan
    scan = placed(tmp_path / "a.h5", y, x, 100.0 + row, unit="mm")
    assert "steps off the raster" in " ".join(scan.provenance.messages)
    assert scan.pixel_size == pytest.approx(2e-6, rel=0.1)
    assert np.argwhere(~np.isfinite(counts_of(scan)["Fe"])).tolist() == [[2, 3]]


def test_positions_of_another_map_are_refused(tmp_path):
    with pytest.raises(InputError, match="40 positions for a map of 5 x 7"):
        placed(tmp_path / "a.h5", np.arange(40.0), np.arange(40.0), FE)
    with pytest.raises(InputError, match="do not lie on a raster"):
        placed(tmp_path / "a.h5", *np.random.default_rng(0).uniform(0, 100, (2, 60)), np.ones(60))


def test_the_spot_is_longer_where_the_beam_grazes():
    beam = Beam(height=2e-6, width=3e-6)
    upright, oblique = (spot_area(None, beam, Sample(incidence=angle)) for angle in (np.pi / 2, np.pi / 6))
    assert upright == pytest.approx(6e-8) and oblique == pytest.approx(2 * upright)


def test_marks_are_told_from_counts_without_a_background():
    random, everywhere = np.random.default_rng(0), np.ones((1, 20, 30, 1), bool)
    bright, dim = (random.poisson(mean, everywhere.shape).astype(float) for mean in (40.0, 1.0))
    spots = random.random(everywhere.shape) < 0.05
    for mark in (-1.0, -8.0):
        np.testing.assert_array_equal(_marked(np.where(spots, mark, bright), everywhere), spots)
        np.testing.assert_array_equal(_marked(np.where(spots, mark, bright + 0.25), everywhere), spots)
    assert not _marked(dim - 1, everywhere).any()  # a background of one
    assert not _marked(bright - random.poisson(40.0, everywhere.shape), everywhere).any()

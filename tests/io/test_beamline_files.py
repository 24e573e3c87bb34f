"""Files as beamlines write them: parts elsewhere or missing, scans that were stopped, metadata that are none."""

from typing import Any

import h5py
import make_files
import numpy as np
import pytest

import diffrecon as dr
from diffrecon import frames as frames_module
from diffrecon import io, prepare
from diffrecon.cli import main
from diffrecon.errors import InputError
from diffrecon.frames import LazyFrames
from diffrecon.prepare import _pipeline as pipeline_module

open_scan: Any = io.open_scan
DEGREES = np.arange(12) * 15.0


def nxtomo(path, *, change=None, drop=(), entry="entry", views=12, frames=None):
    """Two darks, three flats, `views` projections of 3 x 8, whose counts tell their number."""
    key = np.r_[2, 2, 1, 1, 1, np.zeros(views, int)]
    values = {
        "instrument/detector/image_key": key,
        "instrument/detector/data": numbered(len(key)) if frames is None else frames,
        "instrument/detector/x_pixel_size": (2.0, "micrometre"),
        "instrument/detector/y_pixel_size": (2.0, "um"),
        "instrument/detector/distance": (150.0, "millimeter"),
        "instrument/beam/incident_energy": (19.5, "kiloelectron_volt"),
        "sample/rotation_angle": (np.r_[np.zeros(5), np.arange(views) * 15.0], "degree"),
    } | (change or {})
    with h5py.File(path, "a") as file:
        for name, value in values.items():
            if name not in drop:
                value, unit = value if isinstance(value, tuple) else (value, None)
                file[f"{entry}/{name}"] = value
                if unit:
                    file[f"{entry}/{name}"].attrs["units"] = unit
    return path


def numbered(count, shape=(3, 8), dtype=np.uint16):
    return (100 + np.arange(count)[:, None, None] * np.ones((1, *shape))).astype(dtype)


def messages(scan):
    return " | ".join(scan.provenance.messages)


# ---------------------------------------------------------------------------------------------------- frames elsewhere
def virtual(path, sources, *, name="data", rows=None):
    """A virtual dataset of a file for each part, which is written where `sources` has frames."""
    shape = (sum(len(s) for s in sources.values()), 3, 8)
    layout, start = h5py.VirtualLayout(shape, np.uint16), 0
    for file, frames in sources.items():
        with h5py.File(path.parent / file, "w") as part:
            part["raw"] = frames if rows is None else frames[:rows]
        layout[start : start + len(frames)] = h5py.VirtualSource(file, "raw", frames.shape)
        start += len(frames)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(name, layout)
    return path


@pytest.mark.parametrize("lost", ["a.h5", "b.h5"])
def test_missing_source_of_a_virtual_dataset_is_named(tmp_path, lost):
    """Flats or projections: HDF5 would give zeros."""
    parts = {"a.h5": numbered(5), "b.h5": numbered(12)}
    path = nxtomo(tmp_path / "s.nx", drop=("instrument/detector/data",))
    virtual(path, parts, name="entry/instrument/detector/data")
    assert open_scan(path).flats[0, 0, 0] == 102
    (tmp_path / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"s\.nx: /entry/instrument/detector/data.*{lost} is not there"):
        open_scan(path)


def test_sources_of_sources_masks_and_short_ones(tmp_path):
    virtual(tmp_path / "middle.h5", {"raw.h5": numbered(6)})
    with h5py.File(tmp_path / "top.h5", "w") as file:
        layout = h5py.VirtualLayout((6, 3, 8), np.uint16)
        layout[:] = h5py.VirtualSource("middle.h5", "data", (6, 3, 8))
        file.create_virtual_dataset("frames", layout)
        file["link"] = h5py.SoftLink("/frames")
        mask = h5py.VirtualLayout((3, 8), np.uint8)
        mask[:] = h5py.VirtualSource("mask.h5", "mask", (3, 8))
        file.create_virtual_dataset("mask", mask)
    say = {"method": "tomography", "angles": "0..150 deg", "counts": "/link"}
    assert open_scan(tmp_path / "top.h5", **say).views == 6
    with pytest.raises(InputError, match=r"/mask.*mask\.h5 is not there"):
        open_scan(tmp_path / "top.h5", mask="/mask", **say)
    virtual(tmp_path / "short.h5", {"stopped.h5": numbered(6)}, rows=4)
    with pytest.raises(InputError, match=r"stopped\.h5:raw has shape \(4, 3, 8\)"):
        open_scan(tmp_path / "short.h5", **say | {"counts": "/data"})
    (tmp_path / "raw.h5").unlink()
    (tmp_path / "top2.h5").write_bytes((tmp_path / "top.h5").read_bytes())  # not looked at before
    (tmp_path / "middle.h5").touch()
    with pytest.raises(InputError, match=r"middle\.h5: /data.*raw\.h5 is not there"):
        open_scan(tmp_path / "top2.h5", **say)


def test_entries_and_groups_behind_links(tmp_path):
    nxtomo(tmp_path / "scan.nx", entry="entry0000")
    with h5py.File(tmp_path / "master.nx", "w") as file:
        file["entry0000"] = h5py.ExternalLink("scan.nx", "/entry0000")
    with h5py.File(tmp_path / "groups.nx", "w") as file:
        for name in ("instrument", "sample"):
            file[f"entry/{name}"] = h5py.ExternalLink("scan.nx", f"/entry0000/{name}")
        file["again"] = h5py.SoftLink("/entry")  # a second way to the same scan
        file["entry/loop"] = h5py.SoftLink("/entry")
    for name in ("master.nx", "groups.nx"):
        scan = open_scan(tmp_path / name)
        assert (scan.views, len(scan.flats), len(scan.darks)) == (12, 3, 2) and scan.geometry.energy == 19.5e3
    with h5py.File(make_files.dxchange(tmp_path / "dx.h5"), "r+") as file, h5py.File(tmp_path / "raw.h5", "w") as raw:
        for name in ("data", "data_white"):
            raw[name] = file[f"exchange/{name}"][()]
            del file[f"exchange/{name}"]
            file[f"exchange/{name}"] = h5py.ExternalLink("raw.h5", name)
    assert open_scan(tmp_path / "dx.h5").flats.shape == (4, 3, 16)
    (tmp_path / "raw.h5").unlink()
    with pytest.raises(InputError, match="link to raw.h5:data, which is not there"):
        open_scan(tmp_path / "dx.h5")


def test_flats_and_positions_in_files_of_their_own(tmp_path):
    path = make_files.dxchange(tmp_path / "scan.h5", drop=("data_white",))
    with h5py.File(tmp_path / "flats.h5", "w") as file:
        file["entry/data"] = np.full((1, 4, 3, 16), 1000)
    for said in ("flats.h5", "flats.h5:/entry/data", str(tmp_path / "flats.h5")):
        assert open_scan(path, flats=said).flats.shape == (4, 3, 16)
    with h5py.File(tmp_path / "flats.h5", "a") as file:
        file["other"] = np.ones((4, 3, 16))
    with pytest.raises(InputError, match=r"data\.flats: flats\.h5 holds 2 datasets.*flats\.h5:/dataset"):
        open_scan(path, flats="flats.h5")
    whole = open_scan(make_files.cxi(tmp_path / "w.cxi"), check=False, focus_to_sample=make_files.Z1)
    bare = make_files.cxi(tmp_path / "bare.cxi", drop=("translation",))
    with pytest.raises(InputError, match="data.positions"):
        open_scan(bare)
    place = "w.cxi:/entry_1/sample_1/geometry_1/translation"
    said = open_scan(bare, positions=place, positions_unit="m", focus_to_sample=make_files.Z1)
    np.testing.assert_allclose(said.positions, whole.positions)


def test_every_image_a_dataset(tmp_path):
    with h5py.File(tmp_path / "als.h5", "w") as file:
        group = file.create_group("scan")
        said = {"nangles": "12", "arange": "165.0", "senergy": "17000", "pxsize": "0.001"}
        group.attrs.update({k: np.bytes_(v) for k, v in said.items()})
        for kind, frames in (("", numbered(12)), ("bak", numbered(4)), ("drk", numbered(3))):
            for i, frame in enumerate(frames):
                group[f"scan{kind}_0000_{i}.tif"] = frame[None]
    scan = open_scan(tmp_path / "als.h5")
    assert (scan.views, len(scan.flats), len(scan.darks)) == (12, 4, 3) and scan.method == "tomography"
    assert np.asarray(scan.counts)[:, 0, 0].tolist() == list(range(100, 112))  # 10 after 9
    assert (
        np.degrees(scan.angles) == pytest.approx(DEGREES) and scan.pixel_size == 1e-6 and scan.geometry.energy == 17e3
    )
    said = open_scan(tmp_path / "als.h5", counts="/scan", flats="/scan")  # as the file has it
    assert (said.views, len(said.flats), len(said.darks)) == (12, 4, 3)
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        for i, frame in enumerate(numbered(12)):
            file[f"images/{i}"] = frame
    assert open_scan(tmp_path / "plain.h5", counts="/images", angles="0..165 deg").views == 12


# ---------------------------------------------------------------------------------------------------- which is whose
@pytest.mark.parametrize("there", [9, 12])
def test_scans_that_were_stopped(tmp_path, there):
    scan = open_scan(nxtomo(tmp_path / "a.nx", frames=numbered(5 + there), views=12))
    assert scan.views == there and np.degrees(scan.angles) == pytest.approx(DEGREES[:there])
    assert ("was stopped" in messages(scan)) == (there < 12)
    path = make_files.dxchange(tmp_path / "a.h5", counts=numbered(there, (3, 16)), theta=DEGREES)
    for views in (None, f"0:{there}"):
        assert np.degrees(open_scan(path, views=views).angles) == pytest.approx(DEGREES[:there])
    counts, corners = make_files.near_field_frames()
    path = make_files.cxi(tmp_path / "a.cxi", frames=(counts, corners))
    whole = open_scan(path, focus_to_sample=make_files.Z1)
    stopped = make_files.cxi(tmp_path / "b.cxi", change={"instrument_1/detector_1/data": counts[:there]})
    np.testing.assert_allclose(open_scan(stopped, focus_to_sample=make_files.Z1).positions, whole.positions[:there])


def test_fewer_angles_than_frames_need_a_choice_of_views(tmp_path):
    path = make_files.dxchange(tmp_path / "a.h5", theta=DEGREES[:10])
    with pytest.raises(InputError, match=r"10 angles for 12 frames.*data\.views=0:10"):
        open_scan(path)
    scan = open_scan(path, views="0:10")
    assert scan.views == 10 and np.degrees(scan.angles) == pytest.approx(DEGREES[:10])


@pytest.mark.parametrize("first", [0, 1, 500])
def test_dropped_frames_by_their_numbers(tmp_path, first):
    kept = np.setdiff1d(np.arange(12), [3, 7])
    path = make_files.dxchange(tmp_path / "a.h5", counts=numbered(10, (3, 16)), theta=DEGREES)
    with h5py.File(path, "a") as file:
        file["defaults/NDArrayUniqueId"] = kept + first
    assert np.degrees(open_scan(path).angles) == pytest.approx(DEGREES[kept])


@pytest.mark.parametrize("before, after", [(5, 0), (0, 5), (3, 4)])
def test_angles_of_flats_and_darks_too(tmp_path, before, after):
    theta = np.r_[np.full(before, DEGREES[0]), DEGREES, np.full(after, DEGREES[-1])]
    scan = open_scan(make_files.dxchange(tmp_path / "a.h5", theta=theta))
    assert np.degrees(scan.angles) == pytest.approx(DEGREES) and "are left out" in messages(scan)


def test_angles_that_cannot_be_told_apart_are_refused(tmp_path):
    """Eight more than views, as many as flats and darks, but none stands still."""
    with pytest.raises(InputError, match=r"20 angles for 12 views.*8 flats and darks"):
        open_scan(make_files.dxchange(tmp_path / "a.h5", theta=np.arange(20) * 9.0))


@pytest.mark.parametrize("what", ["angles", "positions"])
def test_views_without_a_finite_place_are_left_out(tmp_path, what):
    if what == "angles":
        path, more = nxtomo(tmp_path / "a.nx"), {}
        with h5py.File(path, "a") as file:
            file["entry/sample/rotation_angle"][-2:] = np.nan
    else:
        counts, corners = make_files.near_field_frames(views=12)
        corners = np.where(np.arange(12)[:, None] >= 10, np.nan, corners)
        path, more = make_files.cxi(tmp_path / "a.cxi", frames=(counts, corners)), {"focus_to_sample": make_files.Z1}
    scan = open_scan(path, **more)
    assert scan.views == 10 and f"views 10:12 left out: {what} not finite" in messages(scan)
    assert np.isfinite(getattr(scan, what)).all()
    assert open_scan(path, views="0:8,9", **more).views == 9


def test_many_turns_are_believed_where_a_unit_says_so(tmp_path):
    golden = np.arange(12) * 180 * (np.sqrt(5) - 1) / 2 * 10
    scan = open_scan(make_files.dxchange(tmp_path / "a.h5", theta=golden, units="degree"))
    assert np.exp(1j * scan.angles) == pytest.approx(np.exp(1j * np.radians(golden))) and np.ptp(scan.angles) < 7
    with pytest.raises(InputError, match="look like degrees"):
        open_scan(make_files.dxchange(tmp_path / "b.h5", units="rad"))


def test_degrees_called_radians_at_two_energies_are_refused(tmp_path):
    counts, angles = np.ones((2, 36, 2, 8), np.uint16), np.tile(np.arange(36) * 5.0, (2, 1))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update({"counts": counts, "energies": np.array([33e3, 33.3e3]), "theta": angles, "flats": counts[:, :2]})
    with pytest.raises(InputError, match="angles are in rad, .* look like degrees"):
        open_scan(tmp_path / "a.h5")


def test_pixels_that_are_no_number_in_the_darks_are_masked(tmp_path):
    path = make_files.dxchange(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        darks = file["exchange/data_dark"][()].astype(float)
        darks[:, :, 5] = np.nan
        del file["exchange/data_dark"]
        file["exchange/data_dark"] = darks
    scan = open_scan(path)
    assert np.array_equal(scan.mask, np.arange(16) != 5 + 0 * np.arange(3)[:, None]) and np.isfinite(scan.darks).all()
    assert "3 pixels are not finite in the darks: taken as not measured" in messages(scan)


def test_frames_of_the_alignment_are_left_out(tmp_path):
    control = np.r_[2, 2, 1, 1, 1, np.zeros(10, int), -1, -1]
    path = nxtomo(tmp_path / "a.nx", change={"instrument/detector/image_key_control": control})
    scan = open_scan(path)
    assert scan.views == 10 and "2 alignment frames" in messages(scan)
    assert open_scan(path, image_key="/entry/instrument/detector/image_key").views == 12


# ---------------------------------------------------------------------------------------------------- metadata
ENERGY, DISTANCE = "instrument/beam/incident_energy", "instrument/detector/distance"


@pytest.mark.parametrize(
    "name, value, says",
    [
        (ENERGY, (0.0, "keV"), "no X-ray energy"),
        (ENERGY, (np.nan, "keV"), "no finite number"),
        (ENERGY, (19.5, "furlong"), "not a unit"),
        (ENERGY, "white", "not a number"),
        (ENERGY, ([17.0, 23.0], "keV"), "2 different numbers"),
        (DISTANCE, "b2f1", "not a number"),
        (DISTANCE, (1e9, "m"), "not plausible"),
        ("instrument/detector/x_pixel_size", (0.0, "m"), "not plausible"),
        ("instrument/detector/x_pixel_size", (1.0, "m"), "not plausible"),
        ("instrument/detector/x_pixel_size", (np.inf, "m"), "no finite number"),
    ],
)
def test_metadata_that_are_none_are_passed_over(tmp_path, name, value, says):
    scan = open_scan(nxtomo(tmp_path / "a.nx", change={name: value}, drop=("instrument/detector/y_pixel_size",)))
    said = next(m for m in scan.provenance.messages if says in m)
    field = {ENERGY: "energy", DISTANCE: "sample_to_detector"}.get(name, "detector_pixel")
    assert "not used" in said and getattr(scan.geometry, field) is None
    given = {"energy": "12 keV", "sample_to_detector": "5 cm", "detector_pixel": "3 um"}[field]
    mine = open_scan(tmp_path / "a.nx", **{field: given})
    assert getattr(mine.geometry, field) == pytest.approx({"energy": 12e3, "detector_pixel": 3e-6}.get(field, 0.05))


def test_what_a_method_needs_is_asked_for_with_the_reason(tmp_path):
    path = make_files.cxi(tmp_path / "a.cxi", change={"instrument_1/source_1/energy": np.nan})
    with pytest.raises(dr.errors.MissingMetadata, match="no finite number.*geometry.energy="):
        open_scan(path, focus_to_sample=make_files.Z1)
    same = make_files.cxi(
        tmp_path / "b.cxi", change={"instrument_1/source_1/energy": np.full(16, make_files.ENERGY_JOULES)}
    )
    assert open_scan(same, focus_to_sample=make_files.Z1).geometry.energy == pytest.approx(12658, rel=1e-6)


@pytest.mark.parametrize("key", ["detector_pixel", "pixel_size", "sample_to_detector", "wavelength", "focus_to_sample"])
@pytest.mark.parametrize("value", [0.0, -1e-6, np.inf, 1e6])
def test_lengths_that_cannot_be_are_refused(tmp_path, key, value):
    with pytest.raises(InputError, match=rf"geometry\.{key}.*(not plausible|not a finite)"):
        open_scan(nxtomo(tmp_path / "a.nx"), **{key: value})


@pytest.mark.parametrize("centre", [1e6, -300.0])
def test_an_axis_far_beside_the_detector_is_refused(tmp_path, centre):
    with pytest.raises(InputError, match="rotation_centre = .* beside the frames of 8 columns"):
        open_scan(nxtomo(tmp_path / "a.nx"), rotation_centre=centre)


def test_several_scattering_angles_are_refused(tmp_path):
    path = make_files.mumott(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["two_theta"] = np.array([0.1, 0.2])
    with pytest.raises(InputError, match="two_theta is to be one angle"):
        open_scan(path)


def test_pixel_in_the_sample_of_nxtomo(tmp_path):
    """Optics or a cone beam: the camera's pixel is not the sample's."""
    camera = {f"instrument/detector/{axis}_pixel_size": (12.0, "um") for axis in "xy"}
    sample = {f"sample/{axis}_pixel_size": (size, "um") for axis, size in (("x", 2.0), ("y", 2.1))}
    path = nxtomo(tmp_path / "a.nx", change=camera | sample | {"sample/propagation_distance": (25.0, "mm")})
    scan = open_scan(path)
    assert scan.pixel_size == 2e-6 and scan.geometry.distance == pytest.approx(0.025)
    assert "2e-06 m wide and 2.1e-06 m high" in messages(scan) and "of the detector 1.2e-05 m" in messages(scan)
    cone = nxtomo(tmp_path / "b.nx", change=camera | {"instrument/source/distance": (-30.0, "mm")})
    assert open_scan(cone).pixel_size == pytest.approx(2e-6) and "magnification 6" in messages(open_scan(cone))
    far = nxtomo(tmp_path / "c.nx", change=camera | {"instrument/source/distance": (-145.0, "m")})
    assert open_scan(far).pixel_size == 12e-6


def test_planned_angles_of_dxchange(tmp_path):
    path = make_files.dxchange(tmp_path / "a.h5", drop=("theta",))
    with h5py.File(path, "a") as file:
        for name, value in (("rotation_start", 3.0), ("rotation_step", 15.0), ("num_angles", 12)):
            file[f"process/acquisition/rotation/{name}"] = np.array([value])
    assert np.degrees(open_scan(path).angles) == pytest.approx(3 + DEGREES)


# ---------------------------------------------------------------------------------------------------- kinds of frames
@pytest.mark.parametrize("kind", ["nxtomo", "dxchange"])
def test_line_detectors(tmp_path, kind):
    lines = numbered(17)[:, 0]
    if kind == "nxtomo":
        scan = open_scan(nxtomo(tmp_path / "a.nx", frames=lines))
    else:
        path = make_files.dxchange(tmp_path / "a.h5", counts=lines[5:], theta=DEGREES, drop=("data_white", "data_dark"))
        scan = open_scan(path, flats=lines[2:5], darks=lines[:2])
    assert scan.counts.shape == (12, 1, 8) and scan.flats.shape == (3, 1, 8) and scan.darks.shape == (2, 1, 8)
    assert np.asarray(scan.counts)[:, 0, 0].tolist() == list(range(105, 117))


@pytest.mark.parametrize("dtype", [">u2", ">i4", ">f4", "<f2", "i1", ">f8", np.longdouble])
@pytest.mark.parametrize("form", ["h5", "npz", "npy"])
def test_numbers_of_any_type(tmp_path, dtype, form):
    counts = (numbered(12) - 60).astype(dtype)
    if form == "h5":
        path = make_files.dxchange(tmp_path / "a.h5", counts=counts, theta=DEGREES, drop=("data_white", "data_dark"))
    else:
        path = tmp_path / f"a.{form}"
        np.save(path, counts) if form == "npy" else np.savez(path, counts=counts)
    scan = open_scan(path, angles="0..165 deg", method="tomography")
    values = np.asarray(scan.counts)
    assert values.dtype.isnative and values.dtype.itemsize <= 8 and values[:, 0, 0].tolist() == list(range(40, 52))


def test_leading_axes_of_one(tmp_path):
    counts = numbered(12)[None]
    path = make_files.dxchange(tmp_path / "a.h5", counts=counts, theta=DEGREES, drop=("data_white", "data_dark"))
    assert (open_scan(path, rows="1:3").counts[3:5] == numbered(12)[3:5, 1:3]).all()
    np.savez(tmp_path / "a.npz", counts=counts, angles=DEGREES[None], angle_unit="deg")
    assert open_scan(tmp_path / "a.npz").counts.shape == (12, 3, 8)


def test_what_the_frames_are_can_be_said(tmp_path):
    u = np.arange(64) - 31.5
    lines = np.repeat(np.repeat(0.04 * np.sqrt(np.clip(20.0**2 - u**2, 0, None))[None, None], 90, 0), 2, 1)
    angles = {"angles": np.arange(90) * 2.0, "angle_unit": "deg"}
    noise = np.random.default_rng(0).normal(0, 0.01, lines.shape)
    for name, counts in (("clean", lines), ("noisy", lines + noise)):
        np.savez(tmp_path / f"{name}.npz", counts=counts.astype(np.float32), **angles)
        with pytest.raises(InputError, match=r"look like line integrals.*data\.kind=line-integrals"):
            open_scan(tmp_path / f"{name}.npz").absorption()
        said = open_scan(tmp_path / f"{name}.npz", kind="line-integrals")
        np.testing.assert_allclose(said.absorption(), counts, atol=1e-6)
    np.savez(tmp_path / "t.npz", counts=np.exp(-lines).astype(np.float32), **angles)
    np.testing.assert_allclose(open_scan(tmp_path / "t.npz", kind="transmission").absorption(), lines, atol=1e-6)
    with pytest.raises(InputError, match="data.kind.*none of counts"):
        open_scan(tmp_path / "t.npz", kind="optical-density")
    with pytest.raises(InputError, match=r"data\.kind = line-integrals is for tomography"):
        open_scan(tmp_path / "t.npz", kind="line-integrals", method="k-edge")


@pytest.mark.parametrize("value", [-0.002, np.nan, np.inf])
def test_single_values_of_transmissions_do_not_stop_a_tomogram(tmp_path, value):
    counts = np.full((12, 3, 16), 0.8, np.float32)
    counts[5, 0, 3] = value
    np.savez(tmp_path / "a.npz", counts=counts, angles=DEGREES, angle_unit="deg")
    scan = open_scan(tmp_path / "a.npz")
    clean = np.asarray(scan.counts)
    assert clean[5, 0, 3] == pytest.approx(0.8 if value != -0.002 else value) and np.isfinite(clean).all()
    assert ("1 of 576 values are not finite" in messages(scan)) == (value != -0.002)
    counts[::3] = value
    np.savez(tmp_path / "b.npz", counts=counts, angles=DEGREES, angle_unit="deg")
    if value != -0.002:
        with pytest.raises(InputError, match="view 0 are (nan|inf) in nearly all pixels.*they are 0,3,6,9"):
            open_scan(tmp_path / "b.npz")


def test_bits_of_a_cxi_mask(tmp_path):
    """0x1000 is signal above the background, not a fault."""
    bits = np.zeros((32, 32), np.uint32)
    bits[4:20, 4:20] = 0x1000
    bits[0, 0], bits[5, 5] = 1, 0x1001
    path = make_files.cxi(tmp_path / "a.cxi", change={"instrument_1/detector_1/mask": bits})
    scan = open_scan(path, focus_to_sample=make_files.Z1)
    assert (~scan.mask).sum() == 2 and "has signal" in messages(scan)


def test_darks_of_far_field_frames_go_where_the_frames_go(tmp_path):
    counts, corners = make_files.far_field_frames()
    dark = np.zeros((32, 32))
    dark[:, 24:] = 5
    change = {"instrument_1/detector_1/data_dark": dark}
    path = make_files.cxi(tmp_path / "a.cxi", frames=(counts, corners), change=change)
    scan = open_scan(path, method="far-field-ptychography")
    assert scan.darks.shape == (1, 32, 32) and scan.extra["dc"] == "centre"
    assert (scan.in_fft_order().darks[0] == np.fft.ifftshift(dark)).all()


@pytest.mark.parametrize("method", ["far-field-ptychography", "near-field-ptychography", "cdi"])
def test_the_efficiency_of_the_pixels_is_used_or_named(tmp_path, method):
    """As cdtools writes it (qe_mask): predictions are multiplied by it, pixels that see nothing are masked."""
    counts, corners = make_files.far_field_frames()
    share = np.where(np.arange(32)[:, None] < 20, 1.0, 0.6) * np.ones((32, 32))
    share[5, 7] = 0
    change = {"instrument_1/detector_1/qe_mask": share.astype(np.float32)}
    path = make_files.cxi(tmp_path / "a.cxi", frames=(counts, corners), change=change)
    place = {"focus_to_sample": 3.65e-3} if method.startswith("near") else {}
    scan = open_scan(path, method=method, **place)
    if method == "cdi":
        assert "efficiency of the pixels is not used by cdi" in messages(scan) and "efficiency" not in scan.extra
        return
    assert "efficiency of the pixels 0.6 to 1" in messages(scan) and not scan.mask[5, 7]
    where = np.fft.ifftshift(share) if method.startswith("far") else share
    model = dr.models.Ptychography.from_scan(scan)
    plain = model.replace(efficiency=None, background=0 * model.background)
    seen, unweighted = (np.asarray(m(np.arange(1)))[0] for m in (model.replace(background=plain.background), plain))
    expected = unweighted * np.where(where == 0, 1, where)  # the frames' order is the model's
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6 * expected.max())
    assert np.allclose(open_scan(path, method=method, **place, binning=2).extra["efficiency"].max(), 1)


@pytest.mark.parametrize("efficiency", [-np.ones((32, 32)), np.zeros((32, 32)), np.ones((32, 31))])
def test_an_efficiency_that_is_none_is_refused(tmp_path, efficiency):
    path = make_files.cxi(tmp_path / "a.cxi", frames=make_files.far_field_frames())
    with pytest.raises(InputError, match=r"data\.efficiency"):
        open_scan(path, method="far-field-ptychography", efficiency=efficiency)


@pytest.mark.parametrize("corner", [False, True])
@pytest.mark.parametrize("method", ["far-field-ptychography", "cdi"])
def test_far_field_frames_that_are_not_square(tmp_path, corner, method):
    """Cut about the zero frequency: one pixel of the object, that of the smaller side."""
    counts, corners = make_files.far_field_frames()
    wide = np.zeros((16, 32, 45), np.uint16)
    wide[:, :, 6:38] = counts  # the middle, column 16 of the square ones, at 22
    mask = np.ones((32, 45), bool)
    mask[3, 10] = False
    if corner:
        wide, mask = np.fft.ifftshift(wide, (1, 2)), np.fft.ifftshift(mask)
    np.savez(tmp_path / "a.npz", counts=wide, positions=corners * 20e-9, mask=mask)
    place = {"energy": "8 keV", "sample_to_detector": 2.0, "detector_pixel": "75 um"}
    scan = open_scan(tmp_path / "a.npz", method=method, **place)
    assert (np.asarray(scan.counts) == counts).all() and scan.extra["dc"] == "centre"
    assert np.argwhere(~scan.mask).tolist() == [[3, 4]] and scan.window.columns == (6, 38)
    assert scan.pixel_size == pytest.approx(1.239841984e-6 / 8000 * 2 / (32 * 75e-6))
    assert "32 x 45 pixels are cut to the 32 x 32" in messages(scan)


# ---------------------------------------------------------------------------------------------------- folders
def folder(path, name, *, drop=(), dtype=np.uint16):
    tifffile = pytest.importorskip("tifffile")
    for kind, count in (("", 12), ("flat", 3), ("dark", 2)):
        place = path / kind
        place.mkdir(parents=True, exist_ok=True)
        for i, frame in enumerate(numbered(count, dtype=dtype)):
            if kind or i not in drop:
                tifffile.imwrite(place / ((f"{kind}_%d.tif" if kind else name) % i), frame)
    np.savetxt(path / "angles.txt", DEGREES, header="theta [deg]")
    return path


@pytest.mark.parametrize("name", ["white_pine_%04d.tif", "darkshale_%04d.tif", "flat_white_dark_%d.tif"])
def test_a_word_in_every_name_says_nothing(tmp_path, name):
    path = folder(tmp_path / "scan", name)
    (path / ("._" + name % 0)).write_bytes(b"Mac OS X")
    scan = open_scan(path)
    assert (scan.views, len(scan.flats), len(scan.darks)) == (12, 3, 2)


@pytest.mark.parametrize("drop", [(5,), (11,), (4, 5, 9)])
def test_dropped_images(tmp_path, drop):
    scan = open_scan(folder(tmp_path / "scan", "proj_%04d.tif", drop=drop))
    assert np.degrees(scan.angles) == pytest.approx(np.delete(DEGREES, drop))
    assert np.asarray(scan.counts)[:, 0, 0].tolist() == np.delete(np.arange(100, 112), drop).tolist()


def test_numbers_that_may_be_of_other_frames_are_refused(tmp_path):
    """From 2 to 10 of twelve: the first two or the last one dropped, or one of each."""
    with pytest.raises(InputError, match=r"numbered from 2 to 10, and 12 angles"):
        open_scan(folder(tmp_path / "scan", "proj_%04d.tif", drop=(0, 1, 5, 11)))


def test_missing_image_of_an_esrf_scan(tmp_path):
    fabio = pytest.importorskip("fabio")
    for i, frame in enumerate(numbered(14)):
        if i not in (0, 5):
            fabio.edfimage.EdfImage(data=frame).write(str(tmp_path / f"scan{i:04d}.edf"))
    (tmp_path / "scan.info").write_text("TOMO_N=12\nScanRange=180\nEnergy=19.5\nPixelSize=2\n")
    scan = open_scan(tmp_path)
    assert scan.views == 10 and np.degrees(scan.angles) == pytest.approx(np.delete(DEGREES, (0, 5)))


def test_images_of_other_types_and_shapes_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = folder(tmp_path / "scan", "proj_%04d.tif")
    tifffile.imwrite(path / "proj_0003.tif", np.full((3, 8), 70000, np.uint32))
    with pytest.raises(InputError, match=r"proj_0003\.tif: numbers of type uint32"):
        open_scan(path)
    tifffile.imwrite(path / "proj_0003.tif", numbered(1)[0])
    tifffile.imwrite(path / "flat" / "flat_1.tif", np.full((3, 9), 7, np.uint16))
    with pytest.raises(InputError, match=r"flat_1\.tif: shape \(3, 9\)"):
        open_scan(path)


def test_pixel_of_imagej_and_png(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, numbered(12), imagej=True, resolution=(0.5, 0.5), metadata={"axes": "ZYX", "unit": "um"})
    assert open_scan(path, angles="0..165 deg").pixel_size == pytest.approx(2e-6)
    tifffile.imwrite(path, numbered(12), imagej=True, resolution=(72, 72))
    assert open_scan(path, angles="0..165 deg").pixel_size is None
    image = pytest.importorskip("PIL.Image")
    for i, frame in enumerate(numbered(4, dtype=np.uint8)):
        image.fromarray(frame).save(tmp_path / f"p_{i}.png")
    path.unlink()
    assert np.asarray(open_scan(tmp_path, angles="0..165 deg").counts)[:, 0, 0].tolist() == [100, 101, 102, 103]


def test_inspect_names_what_reconstruct_refuses(tmp_path, capsys):
    path = make_files.dxchange(tmp_path / "a.h5", theta=np.arange(20) * 9.0)
    assert main(["inspect", str(path)]) == 2
    assert "20 angles for 12 views" in capsys.readouterr().err
    counts, corners = make_files.far_field_frames()
    counts[[3, 4]] = 0
    path = make_files.cxi(tmp_path / "a.cxi", frames=(counts, corners))
    assert main(["inspect", str(path), "-m", "far-field-ptychography"]) == 0
    assert "problem      views 3, 4 left out: no counts" in capsys.readouterr().out
    path = make_files.dxchange(tmp_path / "b.h5", drop=("data_white",))
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "problem      the flat field" in said and "missing      data.flats" in said
    path = make_files.cxi(tmp_path / "c.cxi", frames=(counts, corners * 1e6))
    assert main(["inspect", str(path), "-m", "far-field-ptychography"]) == 2
    said = capsys.readouterr()
    assert "problem      positions span" in said.out and "positions span" in said.err


# ---------------------------------------------------------------------------------------------------- packed frames
class Counted(LazyFrames):
    """Frames that count how many values are read of them."""

    bands = 2

    def __init__(self, frames):
        self.frames, self.shape, self.dtype, self.read = frames, frames.shape, frames.dtype, 0

    def _read(self, views, rows, columns):
        values = np.asarray(self.frames[views, rows, columns])
        self.read += values.size
        return values


def test_chunks_of_sinograms_are_unpacked_once(tmp_path, monkeypatch):
    """Packed with all views in a chunk: rows after rows, whatever the size of a block of views."""
    counts = np.random.default_rng(0).poisson(300, (200, 7, 16)).astype(np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("exchange/data", data=counts, chunks=(200, 2, 16), compression="gzip")
        file["exchange/theta"] = np.arange(200) * 0.9
    scan = open_scan(tmp_path / "a.h5")
    assert scan.counts.bands == 2 and open_scan(tmp_path / "a.h5", binning=2).counts.bands == 1
    assert (scan.counts[3:190:7, 1:6] == counts[3:190:7, 1:6]).all() and (scan.counts[5] == counts[5]).all()
    monkeypatch.setattr(frames_module, "TILE_BYTES", 200 * 16 * 2 * 3)
    counted = Counted(counts)
    tiles = list(frames_module.frame_tiles(counted))
    assert [rows for _, rows, _ in tiles] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
    assert counted.read == counts.size
    dark = counts.copy()
    dark[[4, 9]] = 0
    with pytest.raises(InputError, match="2 views .4 the first.*data.views=0:4,5:9,10:200"):
        dr.Scan(counts=Counted(dark)).check_counts()
    monkeypatch.setattr(pipeline_module, "_BLOCK_BYTES", 4 * 7 * 16 * 50)
    counted = Counted(counts)
    flats = np.full((2, 7, 16), 1000.0)
    values = prepare.line_integrals(dr.Scan(counts=counted, flats=flats)).values
    assert counted.read == counts.size
    np.testing.assert_allclose(values, np.log(1000 / counts), rtol=1e-5)
    counted = Counted(counts)
    found = prepare.Preparation(dr.Scan(counts=counted, flats=flats), {"flux": (0, 7, 0, 4)}).flux
    assert counted.read < 1.01 * counts.size
    np.testing.assert_allclose(found, counts[:, :, :4].mean((1, 2)) / 1000, rtol=0.02)  # zingers are mended


def test_rasters_by_paths(tmp_path):
    """As NXstxm has them: motors of rows and columns, or a list of points in any order with both for each."""
    y, x = np.mgrid[:5, :7]
    order = np.random.default_rng(0).permutation(35)
    counts = (100 + 10 * y + x).astype(np.uint32)
    with h5py.File(tmp_path / "map.h5", "w") as file:
        for name, value in {"data": counts[None], "y": np.arange(5) * 0.2, "x": np.arange(7) * 0.2,
                            "list": counts.ravel()[order], "ly": 0.2 * y.ravel()[order], "lx": 0.2 * x.ravel()[order],
                            "monitor": 7.0 + counts.ravel()[order]}.items():  # fmt: skip
            file[name] = value
            file[name].attrs["units"] = "um"
    scan = None
    for data, rows, columns in (("/data", "/y", "/x"), ("/list", "/ly", "/lx")):
        said = {"counts": data, "positions_y": rows, "positions_x": columns}
        said |= {"monitor": "/monitor"} if data == "/list" else {}
        scan = open_scan(tmp_path / "map.h5", method="stxm", energy="700 eV", **said)
        assert (np.asarray(scan.counts) == counts[None]).all() and scan.pixel_size == pytest.approx(2e-7)
        assert scan.positions is None
    assert scan is not None and (scan.extra["monitor"] == 7.0 + counts[None]).all()

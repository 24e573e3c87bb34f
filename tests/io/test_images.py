"""TIFF and EDF stacks, tables and ranges of angles, sinograms."""

import pickle
from typing import Any

import h5py
import numpy as np
import pytest

from diffrecon import io
from diffrecon.errors import InputError, MissingMetadata, MissingPackage
from diffrecon.frames import LazyFrames
from diffrecon.io._images import ImageStack
from diffrecon.io._tables import AngleRange, load_table

open_scan: Any = io.open_scan
FRAMES = (100 + np.arange(6 * 5 * 7)).reshape(6, 5, 7).astype(np.uint16)


def messages(scan):
    return " | ".join(scan.provenance.messages)


# ---------------------------------------------------------------------- TIFF
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"bigtiff": True}, {"byteorder": ">"}, {"rowsperstrip": 2}, {"metadata": None}],
    ids=str,
)
def test_multi_page_tiff_is_read_page_by_page(tmp_path, options, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "stack.tif", FRAMES, photometric="minisblack", **options)
    scan = open_scan(tmp_path / "stack.tif", angles="0..<180 deg")
    assert isinstance(scan.counts, LazyFrames) and scan.counts.dtype == np.uint16
    monkeypatch.setattr(tifffile, "imread", None)  # nobody reads it whole
    np.testing.assert_array_equal(scan.counts[[4, 1], 1:3], FRAMES[[4, 1], 1:3])
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(scan.counts))), FRAMES)
    np.testing.assert_allclose(scan.angles, np.arange(6) * np.pi / 6)


def test_folder_of_tiff_reads_the_wanted_files_only(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for i, frame in enumerate(FRAMES):
        tifffile.imwrite(tmp_path / f"p_{i}.tif", frame)
    scan = open_scan(tmp_path, angles="0..180 deg", check=False)
    (tmp_path / "p_5.tif").write_bytes(b"II*\0")
    np.testing.assert_array_equal(scan.counts[1:3], FRAMES[1:3])
    with pytest.raises(InputError, match=r"p_5\.tif.*cannot be read"):
        scan.counts[:]
    tifffile.imwrite(tmp_path / "p_4.tif", FRAMES[0, :3])
    with pytest.raises(InputError, match=r"p_4\.tif.*shape \(3, 7\)"):
        scan.counts[4]


def test_flats_and_darks_from_files_and_folders(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for folder, value in (("open beam", 900), ("d", 7)):
        (tmp_path / folder).mkdir()
        for i in range(3):
            tifffile.imwrite(tmp_path / folder / f"im_{i}.tif", np.full((5, 7), value + i, np.uint16))
    tifffile.imwrite(tmp_path / "stack.tif", FRAMES, photometric="minisblack")
    scan = open_scan(
        tmp_path / "stack.tif", angles="0..180 deg", flats="open beam", darks=str(tmp_path / "d"), rows="1:3"
    )
    np.testing.assert_array_equal(scan.flats[:, 0, 0], [900, 901, 902])
    assert scan.flats.shape == scan.darks.shape == (3, 2, 7) and "data.flats from open beam" in messages(scan)
    with pytest.raises(InputError, match="neither a dataset"):
        open_scan(tmp_path / "stack.tif", angles="0..180 deg", flats="no such folder")


def test_images_that_cannot_be_frames(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="grey"):
        open_scan(tmp_path / "rgb.tif")
    (tmp_path / "bad.tif").write_bytes(b"II*\0 and nothing more")
    with pytest.raises(InputError, match=r"bad\.tif.*cannot be read"):
        open_scan(tmp_path / "bad.tif")
    (tmp_path / "f").mkdir()
    for i in range(2):
        tifffile.imwrite(tmp_path / "f" / f"p{i}.tif", FRAMES, photometric="minisblack")
    with pytest.raises(InputError, match="one image a file"):
        open_scan(tmp_path / "f")
    (tmp_path / "f" / "p2.edf").write_bytes(b"{ }")
    with pytest.raises(InputError, match="both TIFF and EDF"):
        open_scan(tmp_path / "f")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"bigtiff": True}, {"metadata": None}], ids=str)
@pytest.mark.parametrize("kept", [0.1, 0.4, 0.8])
def test_truncated_tiff_is_refused(tmp_path, options, kept):
    """Also where the library would give the pages that are left."""
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.tile(FRAMES, (1, 9, 9)), photometric="minisblack", **options)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match=r"a\.tif: the TIFF file cannot be read"):
        open_scan(path, angles="0..180 deg")


# ---------------------------------------------------------------------- EDF
def edf(path, *frames):
    image = pytest.importorskip("fabio.edfimage").EdfImage(frames[0])
    for frame in frames[1:]:
        image.append_frame(data=frame)
    image.write(str(path))


def test_edf_stack(tmp_path):
    edf(tmp_path / "stack.edf", *FRAMES)
    scan = open_scan(tmp_path / "stack.edf", angles="0..180 deg")
    assert scan.counts.dtype == np.uint16
    np.testing.assert_array_equal(scan.counts[[5, 2], :, 1:4], FRAMES[[5, 2], :, 1:4])


def test_edf_folder_with_references_and_info(tmp_path):
    """The ESRF's layout: references by the view before which they were taken, images after the scan, an .info file."""
    for i, frame in enumerate(FRAMES):
        edf(tmp_path / f"bone_{i:04d}.edf", frame)
    for view, value in ((0, 900), (4, 800)):
        edf(tmp_path / f"refHST{view:04d}.edf", np.full((5, 7), value, np.uint16))
        edf(tmp_path / f"ref0000_{view:04d}.edf", np.full((5, 7), 1, np.uint16))
    edf(tmp_path / "dark.edf", np.full((5, 7), 9, np.uint16))
    edf(tmp_path / "darkend0000.edf", np.full((5, 7), 90, np.uint16))
    (tmp_path / "bone_.info").write_text(
        "Prefix= bone_\nEnergy= 20.0\nDistance= 100.0\nScanRange= 180.0\nTOMO_N= 4\nPixelSize= 1.4\n"
    )
    scan = open_scan(tmp_path)
    np.testing.assert_array_equal(np.asarray(scan.counts), FRAMES[:4])
    np.testing.assert_allclose(np.degrees(scan.angles), [0, 45, 90, 135])
    np.testing.assert_array_equal(scan.flats[:, 0, 0], [900, 800])
    np.testing.assert_array_equal(scan.extra["flat_views"], [0, 4])
    assert (scan.darks == 9).all() and len(scan.darks) == 1
    assert scan.geometry.energy == 2e4 and scan.geometry.distance == pytest.approx(0.1)
    assert scan.pixel_size == pytest.approx(1.4e-6) and "last 2 of 6 images" in messages(scan)


def test_edf_needs_fabio(tmp_path, monkeypatch):
    (tmp_path / "a.edf").write_bytes(b"{ }")
    monkeypatch.setitem(__import__("sys").modules, "fabio", None)
    with pytest.raises(MissingPackage, match=r"diffrecon\[edf\]"):
        open_scan(tmp_path / "a.edf")


def test_damaged_edf(tmp_path):
    pytest.importorskip("fabio")
    (tmp_path / "a.edf").write_bytes(b"no header at all")
    with pytest.raises(InputError, match=r"a\.edf.*cannot be read"):
        open_scan(tmp_path / "a.edf")
    edf(tmp_path / "b.edf", *FRAMES)
    (tmp_path / "b.edf").write_bytes((tmp_path / "b.edf").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"b\.edf.*incomplete"):
        open_scan(tmp_path / "b.edf")


def test_measured_edf(shared_data):
    pytest.importorskip("fabio")
    assert ImageStack([shared_data / "real" / "CeO2_mask.edf"]).shape == (1, 1679, 1475)


# ---------------------------------------------------------------------- angles
@pytest.mark.parametrize(
    "name, text, expected, unit",
    [
        ("angles.txt", "0\n45\n90\n", [0, 45, 90], None),
        ("angles_deg.txt", "0\n45\n90\n", [0, 45, 90], "deg"),
        ("theta.csv", "angle [rad]\n0\n0.5\n1.0\n", [0, 0.5, 1], "rad"),
        ("theta.csv", "# in degrees\n0,0\n1,45\n2,90\n", [0, 45, 90], "degrees"),
        ("motors.csv", "time;theta_deg;temperature\n1;0;20\n2;45;21\n4;90;20\n", [0, 45, 90], "deg"),
    ],
)
def test_tables_of_angles(tmp_path, name, text, expected, unit):
    (tmp_path / name).write_text(text)
    values, found = load_table(tmp_path / name, "angle|theta|rot")
    assert values.tolist() == expected and found == unit


def test_unit_of_a_table_counts_and_the_user_wins(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "stack.tif", FRAMES, photometric="minisblack")
    np.savetxt(tmp_path / "stack_angles_deg.txt", np.arange(6.0))
    assert open_scan(tmp_path / "stack.tif").angles[-1] == pytest.approx(np.radians(5))
    np.savetxt(tmp_path / "other.csv", np.arange(6.0), header="theta rad")
    assert open_scan(tmp_path / "stack.tif", angles="other.csv").angles[-1] == 5
    assert open_scan(tmp_path / "stack.tif", angles="other.csv", angle_unit="mrad").angles[-1] == 5e-3
    np.save(tmp_path / "a.npy", np.arange(6.0) * 36)
    assert np.degrees(open_scan(tmp_path / "stack.tif", angles="a.npy").angles[-1]) == pytest.approx(180)
    (tmp_path / "stack_angles_deg.txt").write_text("0 and then some\n1 x\n")
    with pytest.raises(InputError, match="not a table of numbers"):
        open_scan(tmp_path / "stack.tif")


@pytest.mark.parametrize(
    "said, expected",
    [
        ("0..180 deg", np.radians([0, 60, 120, 180])),
        ("0..<360 deg", np.radians([0, 90, 180, 270])),
        ("-0.5 .. 1 rad", [-0.5, 0, 0.5, 1]),
        ("1e2..-80 deg", np.radians([100, 40, -20, -80])),
        ([0, 180, "deg"], np.radians([0, 60, 120, 180])),
    ],
)
def test_ranges_of_angles(said, expected):
    np.testing.assert_allclose(AngleRange.parse(said).over(4)[0], expected)


@pytest.mark.parametrize(
    "said, match",
    [
        ("0..180", "has no unit"),
        ("0..0 deg", "spans no angle"),
        ("0..180 mm", "not a unit"),
        ([0, 1, "m"], "not a unit"),
        (["a", 1, "deg"], "no range of angles"),
        ("nan..1 deg", "neither a dataset"),
    ],
)
def test_ranges_that_are_none(tmp_path, said, match):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = FRAMES
    with pytest.raises(InputError, match=match):
        open_scan(tmp_path / "a.h5", counts="/raw", angles=said)


# ---------------------------------------------------------------------- sinograms
def test_sinograms(tmp_path):
    stack = FRAMES.swapaxes(0, 1)  # (row, view, column)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sino"], file["one"] = stack, stack[2]
        file["flats"] = np.ones((5, 2, 7))
    said = {"layout": "sinogram", "angles": "0..180 deg"}
    scan = open_scan(tmp_path / "a.h5", counts="/sino", flats="/flats", **said)
    assert isinstance(scan.counts, LazyFrames) and scan.flats.shape == (2, 5, 7)
    np.testing.assert_array_equal(np.asarray(scan.counts), FRAMES)
    np.testing.assert_array_equal(scan.counts[[4, 1], 2:], FRAMES[[4, 1], 2:])
    np.testing.assert_array_equal(scan.counts[2:2], FRAMES[2:2])
    one = open_scan(tmp_path / "a.h5", counts="/one", flats=np.ones(7), mask=np.ones(7), rows="0:1", binning=2, **said)
    np.testing.assert_array_equal(one.counts[:], FRAMES[:, 2:3, :6:2] + FRAMES[:, 2:3, 1:6:2])
    assert one.flats.shape == (1, 1, 3) and one.mask.shape == (1, 3) and "1 sinogram of 6 views" in messages(one)
    with pytest.raises(InputError, match="projections, sinogram"):
        open_scan(tmp_path / "a.h5", counts="/sino", layout="sinograms")


def test_sinogram_of_neutrons(shared_data):
    pytest.importorskip("tifffile")
    path = shared_data / "real" / "neutron_sinogram_360.tif"
    scan = open_scan(path, layout="sinogram", angles="0..360 deg")
    assert scan.counts.shape == (459, 1, 503) and np.ptp(scan.angles) == pytest.approx(2 * np.pi)
    assert "both ends included: step 0.786" in messages(scan)
    with pytest.raises(MissingMetadata, match="data.angles"):
        open_scan(path, layout="sinogram", method="tomography")


def test_attributes_by_path(shared_data):
    """A microscope's file whose numbers are attributes."""
    path = shared_data / "real" / "txm_chip.h5"
    scan = open_scan(
        path, counts="/tomo_9200eV/data", angles="/tomo_9200eV@Angles", energy="9200 eV", detector_pixel="155.8 nm"
    )
    assert scan.counts.shape == (7, 256, 256) and np.degrees(scan.angles[0]) == pytest.approx(-45.018, abs=1e-3)
    scan = open_scan(
        path, counts="/single_7191eV/data", flats="/single_7191eV/reference", energy="/single_7191eV@Energy"
    )
    assert scan.flats.shape == (1, 512, 512) and scan.geometry.energy == pytest.approx(7191.05, abs=0.01)
    for said, match in (("/tomo_9200eV@Angle", "no attribute Angle.*Angles"), ("/tomo@Angles", "there is no /tomo")):
        with pytest.raises(InputError, match=match):
            open_scan(path, counts="/tomo_9200eV/data", angles=said)
    with pytest.raises(InputError, match="not a stack"):
        open_scan(path, counts="/tomo_9200eV@Angles")

"""Readers: every format in, the conventions of diffrecon out."""

import pickle
from typing import Any

import h5py
import make_files
import numpy as np
import pytest

from diffrecon import io, models
from diffrecon.errors import InputError, MissingMetadata
from diffrecon.frames import Frames, LazyFrames
from diffrecon.geometry import ConeBeam, FarField, ParallelBeam
from diffrecon.io import write_scan
from diffrecon.scan import Scan

# Fields that a file may lack are optional in a Scan; here each test knows what its file holds.
open_scan: Any = io.open_scan
open_hdf5: Any = h5py.File


def messages(scan):
    return " | ".join(scan.provenance.messages)


# ---------------------------------------------------------------------- CXI
def test_cxi_near_field(tmp_path):
    scan = open_scan(make_files.cxi(tmp_path / "a.cxi"), focus_to_sample="3.65 mm")
    counts, corners = make_files.near_field_frames()
    assert scan.method == "near-field-ptychography"
    assert isinstance(scan.geometry, ConeBeam) and isinstance(scan.counts, Frames)
    assert scan.geometry.energy == pytest.approx(12658, rel=1e-6)
    assert scan.pixel_size == pytest.approx(make_files.SAMPLE_PIXEL)
    assert scan.counts.dtype == np.int32 and (np.asarray(scan.counts) == counts).all()
    assert scan.positions / scan.pixel_size == pytest.approx(corners, abs=1e-6)
    # The file marks bad pixels, scans mark measured ones; a bit that only says "in a peak" harms nothing.
    assert not scan.mask[0, 0] and scan.mask[0, 1] and scan.mask.sum() == scan.mask.size - 1
    assert "joules" in messages(scan)


@pytest.mark.parametrize(
    "basis", [((1, 0), (0, 1), (0, 0)), ((0, -1), (1, 0), (0, 0)), ((0.6, -0.8), (-0.8, -0.6), (0, 0))]
)
def test_cxi_detector_orientation(tmp_path, basis):
    """However the detector is turned, positions come out along its rows and columns."""
    scan = open_scan(make_files.cxi(tmp_path / "a.cxi", basis=basis), focus_to_sample=3.65e-3)
    assert scan.positions / scan.pixel_size == pytest.approx(make_files.near_field_frames()[1], abs=1e-6)


def test_cxi_near_field_is_recognised_and_asks_for_the_focus(tmp_path):
    """The error names key and file and proposes a value near the truth, from the motion of the features."""
    with pytest.raises(MissingMetadata, match=r"a\.cxi.*--set geometry.focus_to_sample") as caught:
        open_scan(make_files.cxi(tmp_path / "a.cxi"))
    assert caught.value.name == "geometry.focus_to_sample"
    proposed = float(str(caught.value).split('focus_to_sample="')[1].split()[0])
    assert proposed == pytest.approx(3.65, rel=0.1)


def test_cxi_far_field(tmp_path):
    frames = make_files.far_field_frames()
    path = make_files.cxi(tmp_path / "a.cxi", frames=(frames[0], frames[1] / 30))
    scan = open_scan(path)
    assert scan.method == "far-field-ptychography" and scan.extra["dc"] == "centre"
    assert isinstance(scan.geometry, FarField)
    wavelength = 1.239841984332e-6 / 12658
    assert scan.pixel_size == pytest.approx(wavelength * 1.12 / (32 * 55e-6))


@pytest.mark.parametrize("frames", [make_files.defocused_far_field_frames, make_files.chirped_far_field_frames])
def test_defocused_probe_is_far_field(tmp_path, frames):
    """Features move, but the beam is narrow enough for the far field."""
    counts, corners = frames()
    pixel = 1.239841984332e-6 / 12658 * 1.12 / (64 * 55e-6)
    path = make_files.cxi(tmp_path / "a.cxi", frames=(counts, corners * pixel / make_files.SAMPLE_PIXEL))
    scan = open_scan(path)
    assert scan.method == "far-field-ptychography" and scan.pixel_size == pytest.approx(pixel)
    assert "defocused" in messages(scan)
    assert open_scan(path, method="far-field-ptychography").method == "far-field-ptychography"


@pytest.mark.parametrize("mixed", [[[0, 1], [1, 0]], [[-1, 0], [0, 1]]])
def test_mixed_up_positions_are_noticed(tmp_path, mixed):
    """Rows and columns exchanged, or a sign turned: the motion of the features tells."""
    counts, corners = make_files.near_field_frames()
    scan = open_scan(make_files.cxi(tmp_path / "a.cxi", frames=(counts, corners @ mixed)), focus_to_sample=3.65e-3)
    assert "mixed up" in messages(scan)


@pytest.mark.parametrize("focus, said", [(3.65e-3, ""), (2.5e-3, "pixels per pixel of position")])
def test_wrong_magnification_is_noticed(tmp_path, focus, said):
    scan = open_scan(make_files.cxi(tmp_path / "a.cxi"), focus_to_sample=focus)
    assert ("features" in messages(scan)) == bool(said) and said in messages(scan)


def test_cxi_parallel_beam(tmp_path):
    path = make_files.cxi(tmp_path / "a.cxi")
    scan = open_scan(path, method="near-field-ptychography", beam="parallel", pixel_size=180e-9)
    assert isinstance(scan.geometry, ParallelBeam) and scan.pixel_size == 180e-9


def test_given_values_win_and_say_so(tmp_path):
    scan = open_scan(make_files.cxi(tmp_path / "a.cxi"), focus_to_sample=3.65e-3, energy="10 keV")
    assert scan.geometry.energy == 1e4 and "geometry.energy: the given value is used" in messages(scan)
    scan = open_scan(make_files.cxi(tmp_path / "a.cxi"), focus_to_sample=3.65e-3, wavelength="1 angstrom")
    assert scan.geometry.energy == pytest.approx(12398.4, rel=1e-4)


def test_sections_and_plain_names_say_the_same(tmp_path):
    path = make_files.cxi(tmp_path / "a.cxi")
    plain = open_scan(path, focus_to_sample="3.65 mm", views="0:5")
    sections = open_scan(path, geometry={"focus_to_sample": 3.65e-3}, data={"views": [0, 1, 2, 3, 4]})
    assert plain.views == sections.views == 5 and (plain.positions == sections.positions).all()
    with pytest.raises(InputError, match="did you mean focus_to_sample"):
        open_scan(path, focus_to_sampel=1)
    with pytest.raises(InputError, match="geometry.views"):
        open_scan(path, geometry={"views": 1})


# ---------------------------------------------------------------------- tomography
def test_dxchange(tmp_path):
    scan = open_scan(make_files.dxchange(tmp_path / "a.h5"))
    assert scan.method == "tomography" and scan.counts.shape == (12, 3, 16)
    assert scan.flats.shape == scan.darks.shape == (4, 3, 16)
    assert scan.angles == pytest.approx(np.radians(np.arange(12) * 15))


@pytest.mark.parametrize(
    "theta, units, said",
    [
        (np.arange(12) * 15.0, None, "taken as degrees"),
        (np.arange(12) * np.pi / 12, None, "taken as radians"),
        (np.arange(12) * np.pi / 12, "rad", "angles in rad"),
        (np.arange(12) * 15e3 * np.pi / 180, "mrad", "angles in mrad"),
    ],
)
def test_units_of_angles(tmp_path, theta, units, said):
    scan = open_scan(make_files.dxchange(tmp_path / "a.h5", theta=theta, units=units))
    assert scan.angles == pytest.approx(np.arange(12) * np.pi / 12)
    assert said in messages(scan)


def test_unit_that_contradicts_the_angles_is_refused(tmp_path):
    path = make_files.dxchange(tmp_path / "a.h5", theta=np.arange(12) * np.pi / 12, units="degrees")
    with pytest.raises(InputError, match="data.angle_unit"):
        open_scan(path)
    assert np.ptp(open_scan(path, angle_unit="rad").angles) == pytest.approx(np.pi * 11 / 12)
    assert np.ptp(open_scan(path, angle_unit="deg").angles) == pytest.approx(np.radians(np.pi * 11 / 12))
    with pytest.raises(InputError, match="degrees"):
        open_scan(make_files.dxchange(tmp_path / "b.h5", units="rad"))


def test_rows_and_views(tmp_path):
    path = make_files.dxchange(tmp_path / "a.h5")
    whole, part = open_scan(path), open_scan(path, rows="1:3", views="2:12:3")
    assert part.counts.shape == (4, 2, 16) and part.flats.shape == (4, 2, 16)
    assert (part.counts[:] == np.asarray(whole.counts)[2::3, 1:3]).all()
    assert (part.counts[1, 0] == whole.counts[5, 1]).all() and part.angles == pytest.approx(whole.angles[2::3])
    with pytest.raises(InputError, match="data.rows"):
        open_scan(path, rows="5:9")


def test_nxtomo_with_external_link(tmp_path):
    scan = open_scan(make_files.nxtomo(tmp_path / "a.nxs"))
    assert scan.counts.shape == (9, 3, 8) and scan.flats.shape[0] == scan.darks.shape[0] == 2
    assert (scan.counts[0] == 104).all() and (scan.flats[0] == 102).all() and (scan.darks[1] == 101).all()
    assert scan.angles == pytest.approx(np.radians(np.linspace(90, 270, 9)))
    assert scan.geometry.energy == pytest.approx(53e3)
    assert "1 frames to leave out" in messages(scan)


def test_nxtomo_names_a_link_that_leads_nowhere(tmp_path):
    with pytest.raises(InputError, match=r"frames/detector\.h5"):
        open_scan(make_files.nxtomo(tmp_path / "a.nxs", link_exists=False))


def test_nxtomo_with_several_entries(tmp_path):
    path = make_files.nxtomo(tmp_path / "a.nxs", entries=("entry0000", "entry0001"))
    with pytest.raises(InputError, match="data.entry"):
        open_scan(path)
    assert open_scan(path, entry="entry0001").views == 9


# ---------------------------------------------------------------------- other formats
@pytest.mark.parametrize("matrices, old_names", [(True, False), (False, False), (False, True)])
def test_mumott(tmp_path, matrices, old_names):
    pytest.importorskip("diffrecon.operators.scattering")
    path = make_files.mumott(tmp_path / "a.h5", matrices=matrices, old_names=old_names)
    scan = open_scan(path)
    assert scan.method == "saxs-tensor-tomography" and scan.counts.shape == (4, 4, 5, 3)
    with open_hdf5(path) as file:
        assert (scan.counts[2] == file["projections/2/data"][()].transpose(1, 0, 2)).all()
        assert (scan.transmission[1] == file["projections/1/diode"][()].T).all()
    geometry = scan.tensor_geometry
    assert np.asarray(geometry.rotations[3]) == pytest.approx(make_files.rotation_matrix(0.9, 0.2), abs=1e-6)
    assert np.asarray(geometry.offsets) == pytest.approx(np.tile([-0.25, 0.5], (4, 1)))
    part = open_scan(path, views="1:3")
    assert part.views == 2 and np.asarray(part.tensor_geometry.rotations[0]) == pytest.approx(
        make_files.rotation_matrix(0.3, 0.2), abs=1e-6
    )


def test_mumott_projections_of_different_size(tmp_path):
    """Padding changes no ray: pixel J of the raster stays at J + 1/2 - N/2 + offset."""
    pytest.importorskip("diffrecon.operators.scattering")
    path = make_files.mumott(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        for name in ("data", "diode", "weights"):
            values = file[f"projections/1/{name}"]
            assert isinstance(values, h5py.Dataset)
            smaller = values[:3]
            del file[f"projections/1/{name}"]
            file[f"projections/1/{name}"] = smaller
    scan = open_scan(path)
    assert scan.counts.shape == (4, 4, 5, 3) and (scan.weights[1, :, 3:] == 0).all()
    columns = np.asarray(scan.tensor_geometry.offsets)[:, 1]
    assert -5 / 2 + columns[1] == pytest.approx(-3 / 2 + 0.5) and -5 / 2 + columns[0] == pytest.approx(-5 / 2 + 0.5)


@pytest.mark.parametrize("corner", [False, True])
def test_npz_far_field(tmp_path, corner):
    counts, corners = make_files.far_field_frames()
    counts = np.fft.ifftshift(counts, axes=(1, 2)) if corner else counts
    scan = open_scan(make_files.npz(tmp_path / "a.npz", frames=(counts, corners), remark=np.arange(3)))
    assert scan.method == "far-field-ptychography" and scan.positions_unit == "pixel" and scan.pixel_size is None
    assert scan.extra["dc"] == ("corner" if corner else "centre")
    assert scan.probe.shape == (1, 32, 32) and "not used: remark" in messages(scan)


@pytest.mark.parametrize(
    "save, order, mapped", [(np.savez, "C", True), (np.savez, "F", True), (np.savez_compressed, "C", False)]
)
def test_npz_stays_in_the_file_where_it_can(tmp_path, save, order, mapped):
    counts = np.asarray(np.random.default_rng(0).poisson(50, (40, 128, 128)), np.uint16, order=order)
    save(tmp_path / "a.npz", remark=np.arange(5), counts=counts, angles=np.linspace(0, 3, 40))
    scan = open_scan(tmp_path / "a.npz", check=False)
    assert isinstance(scan.counts, np.memmap) == mapped
    np.testing.assert_array_equal(np.asarray(scan.counts), counts)
    part = open_scan(tmp_path / "a.npz", views="3::2", rows="5:20", binning=2)
    expected = counts[3::2, 5:19].reshape(19, 7, 2, 64, 2).sum((2, 4))
    np.testing.assert_array_equal(np.asarray(part.counts), expected)
    assert isinstance(part.counts, LazyFrames) == mapped


def test_npy_stays_in_the_file(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4, 5), np.uint16))
    assert isinstance(open_scan(tmp_path / "a.npy", angles="0..90 deg").counts, np.memmap)


def test_npz_near_field_in_pixels(tmp_path):
    """Features that move by as many pixels as the positions: near field, also without any metadata."""
    path = make_files.npz(
        tmp_path / "a.npz",
        frames=make_files.near_field_frames(),
        energy=np.array(12.0),
        beam="parallel",
        pixel_size=np.array(1e-7),
        sample_to_detector=np.array(0.01),
    )
    scan = open_scan(path)
    assert scan.method == "near-field-ptychography" and scan.pixel_size == 1e-7


def test_npz_positions_with_a_unit(tmp_path):
    positions = make_files.positions_pixels() * 0.02
    path = make_files.npz(tmp_path / "a.npz", positions=positions, positions_unit="um")
    scan = open_scan(path, method="far-field-ptychography", pixel_size=20e-9)
    assert scan.positions_unit == "m" and scan.positions == pytest.approx(positions * 1e-6)


@pytest.mark.parametrize("propagation", ["farfield", "nearfield"])
def test_ptyd(tmp_path, propagation):
    scan = open_scan(make_files.ptyd(tmp_path / "a.ptyd", propagation=propagation))
    counts, corners = make_files.far_field_frames()
    assert scan.method == f"{'far' if propagation == 'farfield' else 'near'}-field-ptychography"
    assert scan.geometry.energy == pytest.approx(7200) and scan.geometry.detector_pixel == pytest.approx(75e-6)
    assert (np.asarray(scan.counts) == counts).all() and (scan.counts[12] == counts[12]).all()
    assert scan.positions == pytest.approx(corners * (20e-9 if propagation == "farfield" else 75e-6))
    assert not scan.mask[3, 4] and scan.mask.sum() == 32 * 32 - 1


def test_tiff_folder(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for i in range(11):
        tifffile.imwrite(tmp_path / f"frame_{i}.tif", np.full((4, 6), 100 + i, np.uint16))
    tifffile.imwrite(tmp_path / "flat_0.tif", np.full((4, 6), 500, np.uint16))
    (tmp_path / "darks").mkdir()
    tifffile.imwrite(tmp_path / "darks" / "dark_1.tif", np.full((4, 6), 5, np.uint16))
    np.savetxt(tmp_path / "angles.txt", np.linspace(0, 180, 11))
    scan = open_scan(tmp_path)
    assert scan.method == "tomography" and scan.counts.shape == (11, 4, 6)
    assert scan.counts[10, 0, 0] == 110 and scan.counts[2:4].shape == (2, 4, 6)  # frame_10 after frame_9
    assert (scan.flats == 500).all() and (scan.darks == 5).all()
    assert np.ptp(scan.angles) == pytest.approx(np.pi)
    with pytest.raises(InputError, match="no such file"):
        open_scan(tmp_path / "nothing")


def test_any_hdf5_by_paths(tmp_path):
    path = make_files.holograms(tmp_path / "a.h5")
    scan = open_scan(path, **make_files.HOLOGRAMS)
    assert scan.method == "holography" and scan.flux == 100
    assert scan.geometry.focus_to_sample == pytest.approx([0.0213, 0.0222, 0.0259, 0.0332])
    assert scan.geometry.detector_pixel == pytest.approx(3e-6)  # by the units attribute of the dataset
    scan = open_scan(path, **make_files.HOLOGRAMS | {"energy": "/energy_keV", "shifts": "/shifts"}, views="1:3")
    assert scan.geometry.energy == 17e3 and scan.geometry.focus_to_sample.shape == (2,)
    assert scan.extra["shifts"].shape == (2, 2)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"counts": "/nothing"}, r"no dataset /nothing.*/raw \(4, 16, 16\)"),
        ({"detector_pixel": 3}, "geometry.detector_pixel = 3 m is not plausible"),
        ({"detector_pixel": "3 keV"}, "geometry.detector_pixel.*not a unit"),
        ({"focus_to_detector": "1 mm"}, "not behind the sample"),
        ({"energy": 1e9}, "no X-ray energy"),
        ({"energy": None}, "geometry.energy"),
        ({"focus_to_sample": None}, "geometry.focus_to_sample"),
        ({"focus_to_sample": [0.01, 0.02]}, "2 values for 4 views"),
        ({"beam": "round"}, "none of parallel, cone"),
        ({"counts": None}, "data.counts"),
        ({"flux": "many"}, "data.flux"),
    ],
)
def test_what_is_said_about_a_file_is_checked(tmp_path, change, match):
    with pytest.raises(InputError, match=match):
        open_scan(make_files.holograms(tmp_path / "a.h5"), **make_files.HOLOGRAMS | change)


def test_own_layout_round_trip(tmp_path):
    counts, corners = make_files.near_field_frames()
    geometry = ConeBeam(12658.0, 3.65e-3, 1.12365, 55e-6)
    scan = Scan.from_arrays(
        counts,
        positions=corners * geometry.pixel_size,
        mask=np.eye(32) == 0,
        geometry=geometry,
        method="near-field-ptychography",
        flux=12.5,
    )
    again = open_scan(write_scan(tmp_path / "a.h5", scan))
    assert again.method == scan.method and again.flux == 12.5 and again.provenance.reader == "diffrecon"
    assert (np.asarray(again.counts) == counts).all() and (again.mask == scan.mask).all()
    assert again.positions == pytest.approx(scan.positions) and again.pixel_size == pytest.approx(scan.pixel_size)
    tomography = Scan.from_arrays(
        counts,
        angles=np.linspace(0, 3, 16),
        method="tomography",
        rotation_centre=15.25,
        geometry=ParallelBeam(1e-6, 2e4, 0.1),
        flats=counts[:2],
        extra={"flat_views": np.array([0.0, 16.0])},
    )
    again = open_scan(write_scan(tmp_path / "b.h5", tomography))
    assert again.extra["flat_views"].tolist() == [0, 16]
    assert again.rotation_centre == 15.25 and again.geometry.energy == 2e4
    assert again.angles == pytest.approx(tomography.angles)


# ---------------------------------------------------------------------- lazy frames
def test_frames_stay_in_the_file(tmp_path):
    scan = open_scan(make_files.cxi(tmp_path / "a.cxi"), focus_to_sample=3.65e-3, check=False)
    counts = make_files.near_field_frames()[0]
    again = pickle.loads(pickle.dumps(scan.counts))
    assert (again[[5, 2, 2]] == counts[[5, 2, 2]]).all()
    assert (scan.counts[3] == counts[3]).all() and (scan.counts[1:4, 2, ::3] == counts[1:4, 2, ::3]).all()
    assert sum(len(b) for b in scan.counts.blocks(5)) == 16


def test_packed_frames(tmp_path):
    """Filters of hdf5plugin are brought in when a file needs them."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=np.ones((2, 8, 8), np.uint16), chunks=(1, 8, 8), **hdf5plugin.Bitshuffle())
    assert (open_scan(tmp_path / "a.h5", counts="/raw", angles=[0, 1]).counts[:] == 1).all()


# ---------------------------------------------------------------------- measured files
def test_near_field_of_p25(shared_data):
    scan = open_scan(shared_data / "real" / "p25_near_field.cxi", focus_to_sample="3.65 mm")
    assert scan.method == "near-field-ptychography" and scan.counts.shape == (180, 100, 100)
    assert scan.geometry.magnification == pytest.approx(307.85, abs=0.01)
    assert scan.pixel_size == pytest.approx(178.66e-9, abs=0.01e-9)
    assert scan.geometry.distance == pytest.approx(3.638e-3, abs=1e-6)
    with open_hdf5(shared_data / "real" / "p25_near_field.cxi") as file:
        motion = file["entry_1/sample_1/geometry_1/translation"][()]
    assert scan.positions == pytest.approx(motion[:, [1, 0]])
    with pytest.raises(MissingMetadata):
        open_scan(shared_data / "real" / "p25_near_field.cxi")


def test_far_field_of_siemens(shared_data):
    scan = open_scan(shared_data / "real" / "siemens_far_field.npz")
    assert scan.method == "far-field-ptychography" and scan.extra["dc"] == "corner" and scan.positions_unit == "pixel"
    assert scan.counts.dtype == np.uint16


def test_tomography_files(shared_data):
    tooth = open_scan(shared_data / "real" / "tooth.h5")
    assert tooth.views == 181 and np.degrees(tooth.angles[-1]) == pytest.approx(179.0055, abs=1e-3)
    k11 = open_scan(shared_data / "real" / "k11_nxtomo" / "k11-18014.nxs")
    assert (k11.views, len(k11.flats), len(k11.darks)) == (3001, 100, 100)
    assert np.degrees(k11.angles[[0, -1]]) == pytest.approx([90, 270], abs=0.01)


def test_simulated_files(shared_data):
    pytest.importorskip("diffrecon.operators.scattering")
    helix = open_scan(shared_data / "simulated" / "saxs_helix_n32.h5")
    assert helix.counts.shape == (120, 32, 32, 8) and helix.transmission.shape == (120, 32, 32)


class TestReadersOfUsers:
    """Formats registered from outside: asked first, and nothing that they return gets lost."""

    @pytest.fixture
    def ours(self, monkeypatch, tmp_path):
        monkeypatch.setattr(io.readers, "_REGISTERED", list(io.readers._REGISTERED))

        def read(source, given):
            turns = np.linspace(0, 3, 6)
            values = {"counts": np.ones((6, 4, 8)), "angles": turns, "angle_unit": "rad", "method": "laminography"}
            return values | {"tilt": 0.5, "times": np.arange(6.0), "temperature": 300.0}

        io.register_reader(io.Reader("ours", lambda source: source.path.suffix == ".npy", read))
        np.save(tmp_path / "scan.npy", np.zeros(3))
        return tmp_path / "scan.npy"

    def test_what_models_read_arrives_and_the_rest_is_said(self, ours):
        scan = open_scan(ours)
        assert scan.provenance.reader == "ours" and scan.extra["tilt"] == 0.5 and scan.extra["temperature"] == 300
        np.testing.assert_array_equal(scan.extra["times"], np.arange(6))
        assert [line for line in scan.provenance.messages if "nothing in diffrecon reads it: temperature" in line]
        model = models.Laminography.from_scan(scan, size=(2, 8, 8))
        assert float(model.projector.motion.tilt) == pytest.approx(0.5)

    def test_times_follow_the_views_and_the_user_wins(self, ours):
        part = open_scan(ours, views=[4, 1], tilt="10 deg")
        np.testing.assert_array_equal(part.extra["times"], [4, 1])
        assert part.extra["tilt"] == pytest.approx(np.deg2rad(10))
        assert open_scan(ours).subset([5, 2]).extra["times"].tolist() == [5, 2]

    def test_something_else_is_refused(self):
        with pytest.raises(InputError, match="is no reader"):
            io.register_reader(lambda source: None)


def test_a_magnification_that_features_contradict_is_refused(tmp_path):
    """The unit of a distance was forgotten: features move several times as far as positions say."""
    path = make_files.cxi(tmp_path / "a.cxi")
    with pytest.raises(InputError, match=r"pixels per pixel of position.*units of geometry.focus_to_sample"):
        open_scan(path, focus_to_sample="20 mm")
    with pytest.raises(MissingMetadata, match="is an estimate by the motion of the features"):
        open_scan(path)

"""Files for other programs: scans and results as CXI, results as ptypy stores them; and scans described by motors."""

from typing import Any

import h5py
import jax.numpy as jnp
import make_files
import numpy as np
import pytest

import diffrecon as dr
from diffrecon import io
from diffrecon.cli import main
from diffrecon.errors import InputError, MissingMetadata
from diffrecon.geometry import ConeBeam, FarField, ParallelBeam
from diffrecon.models import Ptychography
from diffrecon.scan import Scan

open_scan: Any = io.open_scan
FAR = FarField(16, 9e3, 1.5, 75e-6)


def far_scan(dc="corner", **changes):
    """A far-field scan of 9 views with its model; frames of 16 x 16 whose zero frequency is at (0, 0) or centred."""
    random = np.random.default_rng(0)
    corners = np.stack(np.divmod(np.arange(9), 3), -1) * 4.0 + random.integers(0, 2, (9, 2))
    y, x = np.indices((16, 16)) - 8
    probe = 30 * np.exp(-(y**2 + x**2) / 20 + 0.05j * (y**2 - x * y))
    sample = np.exp(1j * random.random((28, 28)))
    counts = (
        np.stack(
            [
                abs(np.fft.fft2(probe * sample[int(r) : int(r) + 16, int(c) : int(c) + 16], norm="ortho")) ** 2
                for r, c in corners
            ]
        )
        .round()
        .astype(np.uint16)
    )
    mask = random.random((16, 16)) > 0.1
    if dc == "centre":
        counts, mask = np.fft.fftshift(counts, (1, 2)), np.fft.fftshift(mask)
    return (
        Scan.from_arrays(
            counts,
            method="far-field-ptychography",
            positions=corners * FAR.pixel_size,
            geometry=FAR,
            mask=mask,
            probe=probe[None],
            extra={"dc": dc},
            **changes,
        ),
        probe,
        sample,
        corners,
    )


# ---------------------------------------------------------------------- scans as CXI
@pytest.mark.parametrize("dc", ["corner", "centre"])
def test_far_field_scan_to_cxi_and_back(tmp_path, dc):
    scan, probe, _, _ = far_scan(dc)
    back = open_scan(io.write_scan(tmp_path / "a.cxi", scan))
    assert back.method == scan.method and back.counts.dtype == np.uint16 and back.extra["dc"] == "centre"
    np.testing.assert_array_equal(np.asarray(back.in_fft_order().counts), np.asarray(scan.in_fft_order().counts))
    np.testing.assert_array_equal(back.in_fft_order().mask, scan.in_fft_order().mask)
    np.testing.assert_allclose(back.positions, scan.positions, atol=1e-15)
    np.testing.assert_allclose(back.probe[0], probe)
    for field in ("energy", "sample_to_detector", "detector_pixel"):
        assert getattr(back.geometry, field) == pytest.approx(getattr(FAR, field))


def test_cxi_means_positions_masks_and_units_as_the_format_does(tmp_path):
    """By the document: motion of the sample in x, y, z; energy in joules; mask zero = good; zero frequency centred."""
    scan, _, _, corners = far_scan()
    io.write_cxi(tmp_path / "a.cxi", scan)
    with h5py.File(tmp_path / "a.cxi") as file:
        entry: Any = file["entry_1"]
        assert file["cxi_version"][()] == 160
        motion, basis = entry["data_1/translation"][()], entry["instrument_1/detector_1/basis_vectors"][()]
        # The patch moves by -motion; columns of a matrix from pixels to metres in the sample.
        rows, columns = (vector / np.linalg.norm(vector) for vector in basis)
        moved = np.stack([-motion @ rows, -motion @ columns], -1)
        np.testing.assert_allclose(moved, corners * FAR.pixel_size, atol=1e-15)
        assert entry["instrument_1/source_1/energy"][()] == pytest.approx(9e3 * 1.602176634e-19)
        mask = entry["instrument_1/detector_1/mask"][()]
        assert mask.dtype == np.uint32 and (mask == 0).sum() == scan.mask.sum()
        mean = entry["data_1/data"][()].mean(0)
        assert np.hypot(*(np.unravel_index(mean.argmax(), mean.shape) - np.array(8))) < 3


@pytest.mark.parametrize("place", [ConeBeam(17e3, 4e-3, 1.0, 55e-6), ParallelBeam(0.65e-6, 17e3, 0.05)])
def test_near_field_scan_to_cxi_and_back(tmp_path, place):
    counts, corners = make_files.near_field_frames()
    scan = Scan.from_arrays(
        counts, method="near-field-ptychography", positions=corners, positions_unit="pixel", geometry=place
    )
    back = open_scan(io.write_cxi(tmp_path / "a.cxi", scan))
    assert type(back.geometry) is type(place) and back.method == scan.method
    assert back.pixel_size == pytest.approx(place.pixel_size)
    assert back.geometry.distance == pytest.approx(place.distance)
    np.testing.assert_allclose(back.positions / back.pixel_size, corners, atol=1e-9)


def test_positions_in_pixels_of_unknown_size_are_refused(tmp_path):
    scan, *_ = far_scan()
    bare = scan.replace(geometry=FarField(16), positions=scan.positions / FAR.pixel_size, positions_unit="pixel")
    with pytest.raises(InputError, match="pixel_size"):
        io.write_cxi(tmp_path / "a.cxi", bare)
    assert not list(tmp_path.iterdir())


def test_many_frames_are_copied_block_by_block(tmp_path):
    counts = np.random.default_rng(0).poisson(3.0, (40, 36, 36)).astype(np.uint16)  # packed: more than 64 kB
    for name in ("a.cxi", "a.h5"):
        path = io.write_scan(tmp_path / name, Scan.from_arrays(counts, method="cdi", extra={"dc": "centre"}))
        np.testing.assert_array_equal(np.asarray(open_scan(path, method="cdi").counts), counts)


# ---------------------------------------------------------------------- results
@pytest.fixture(scope="module")
def solved():
    scan, probe, sample, corners = far_scan()
    model = Ptychography(
        jnp.asarray(sample, jnp.complex64),
        jnp.asarray(probe[None], jnp.complex64),
        jnp.asarray(corners, jnp.float32),
        jnp.zeros((1, 1)),
        jnp.ones(9),
        far=True,
        pixel_size=FAR.pixel_size,
    )
    return scan, model


def test_result_as_cxi(tmp_path, solved):
    scan, model = solved
    dr.write(tmp_path / "r.cxi", model, scan)
    with h5py.File(tmp_path / "r.cxi") as file:
        entry: Any = file["entry_1"]
        titles = {entry[n].attrs["title"]: entry[n] for n in entry if n.startswith("image_")}
        np.testing.assert_allclose(titles["object"]["data"][()], model.object)
        np.testing.assert_allclose(titles["probe"]["data"][()], model.probe)
        np.testing.assert_allclose(entry["data_1/data"][()], model.object)
        assert titles["object"]["image_size"][()] == pytest.approx(np.full(2, 28 * FAR.pixel_size))
        assert titles["object"]["process_1/program"][()] == b"diffrecon"
        assert entry["image_1/source_1/energy"][()] == pytest.approx(9e3 * 1.602176634e-19)
        translation = entry["sample_1/geometry_1/translation"][()]
    # Motion of the sample (x, y, z) against the patch's (row, column), rows along -y and columns along -x.
    np.testing.assert_allclose(translation[:, [1, 0]], model.positions * FAR.pixel_size, rtol=1e-5)


def test_result_as_ptyr(tmp_path, solved):
    """By ptypy's own rules, storages and positions of the file predict the frames."""
    scan, model = solved
    dr.write(tmp_path / "r.ptyr", model, scan)
    with h5py.File(tmp_path / "r.ptyr") as file:
        types = []
        file.visititems(lambda _, item: types.append(item.attrs["type"]))
        content: Any = file["content"]
        (obj,), (probe,) = content["obj"].values(), content["probe"].values()
        places = next(iter(content["positions"].values()))[()]
        pixels = (places - obj["_origin"][()]) / obj["_psize"][()]
        low = np.round(pixels).astype(int) - np.array(probe["shape"][1:]) // 2
        waves = [probe["data"][0] * obj["data"][0, r : r + 16, c : c + 16] for r, c in low]
        y, x = (np.arange(16) - 8) * obj["_psize"][()][:, None]
        # The phase in front of its Fraunhofer integral; without it the frames would be others.
        waves = np.array(waves) * np.exp(1j * np.pi * (y[:, None] ** 2 + x**2) / (FAR.wavelength * 1.5))
        assert file["header/kind"][()] == b"minimal"
    assert set(types) <= {"dict", "array", "string", "arraytuple", "arraylist", "scalar"}
    frames = abs(np.fft.fft2(waves, norm="ortho")) ** 2
    np.testing.assert_allclose(frames, model(np.arange(9)), rtol=1e-3, atol=1e-2)


def test_what_ptyr_has_no_place_for_is_refused(tmp_path, solved):
    volume = dr.Result("tomography", {"volume": dr.Quantity(np.ones((2, 2, 2)), "1/m", ("z", "y", "x"))})
    for result in (volume, solved[1].replace(object=jnp.ones((2, 28, 28), jnp.complex64))):
        with pytest.raises(InputError, match="one plane"):
            dr.write(tmp_path / "r.ptyr", result)
    assert not list(tmp_path.iterdir())


def test_result_never_replaces_its_measurement(tmp_path, solved):
    path = io.write_cxi(tmp_path / "a.cxi", solved[0])
    with pytest.raises(InputError, match="the measurement itself"):
        dr.write(path, solved[1], open_scan(path))


# ---------------------------------------------------------------------- motors, saturation, single frames
def motors(path, y_unit="um", x_unit="mm", **more):
    """A beamline's file by its own names: rows in micrometres, columns in millimetres."""
    counts, corners = make_files.near_field_frames()
    pixel = 0.5e-6
    with h5py.File(path, "w") as file:
        file["raw/frames"] = counts
        file["raw/dark"] = np.zeros((2, 32, 32), np.uint16)
        for name, axis, unit, scale in (("y", 0, y_unit, 1e6), ("x", 1, x_unit, 1e3)):
            file[f"motors/{name}"] = corners[:, axis] * pixel * scale
            if unit:
                file[f"motors/{name}"].attrs["units"] = unit
    said = (
        dict(
            counts="/raw/frames",
            darks="/raw/dark",
            positions_y="/motors/y",
            positions_x="/motors/x",
            energy=17e3,
            detector_pixel=pixel,
            sample_to_detector=0.1,
            beam="parallel",
            method="near-field-ptychography",
        )
        | more
    )
    return corners * pixel, said


def test_motors_each_in_a_unit_of_its_own(tmp_path):
    places, said = motors(tmp_path / "a.h5")
    scan = open_scan(tmp_path / "a.h5", **said)
    np.testing.assert_allclose(scan.positions, places, atol=1e-12)
    assert scan.positions_unit == "m" and scan.darks.shape == (2, 32, 32)
    turned = open_scan(tmp_path / "a.h5", **said, positions_of="sample")
    np.testing.assert_allclose(turned.positions, -places, atol=1e-12)


def test_motors_in_a_unit_that_the_user_states(tmp_path):
    places, said = motors(tmp_path / "a.h5", "", "")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["motors/x"][...] = file["motors/x"][()] * 1e3
    with pytest.raises(InputError, match="positions_unit=um"):
        open_scan(tmp_path / "a.h5", **said)
    np.testing.assert_allclose(open_scan(tmp_path / "a.h5", **said, positions_unit="um").positions, places, atol=1e-12)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"positions_x": None}, "both of them"),
        ({"positions_x": [1.0, 2.0]}, "one number a view"),
        ({"positions": [[0.0, 1.0]] * 16}, "both of them"),
        ({"positions_of": "stage"}, "none of patch, sample"),
        ({"saturation": -1}, "-1 is not plausible; give a number such as .*65535"),
        ({"saturation": 1e12}, "counts end at"),
    ],
)
def test_what_is_said_about_motors_and_saturation_is_checked(tmp_path, change, says):
    _, said = motors(tmp_path / "a.h5")
    with pytest.raises(InputError, match=says):
        open_scan(tmp_path / "a.h5", **(said | change))


def test_motors_and_saturation_in_own_layout(tmp_path):
    places, said = motors(tmp_path / "a.h5")
    scan = open_scan(tmp_path / "a.h5", **said, saturation=65535)
    assert open_scan(io.write_scan(tmp_path / "b.h5", scan)).saturation == scan.saturation == 65535
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        del file["data/positions"]
        for name, axis in (("y", 0), ("x", 1)):
            file[f"data/positions_{name}"] = places[:, axis] * 1e6
            file[f"data/positions_{name}"].attrs["units"] = "um"
    np.testing.assert_allclose(open_scan(tmp_path / "b.h5").positions, places, atol=1e-12)


def test_a_single_frame_is_a_scan_of_one_view(tmp_path):
    frame = np.fft.fftshift(abs(np.fft.fft2(np.pad(np.ones((4, 4)), 6))) ** 2).round().astype(np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["detector/image"] = frame
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["data/counts"] = frame
    with h5py.File(tmp_path / "c.cxi", "w") as file:
        file["cxi_version"] = 160
        file["entry_1/instrument_1/detector_1/data"] = frame
    np.save(tmp_path / "d.npy", frame)
    assert open_scan(tmp_path / "c.cxi").method == "cdi"  # CXI without positions
    for name, said in (("a.h5", {"counts": "/detector/image"}), ("b.h5", {}), ("c.cxi", {}), ("d.npy", {})):
        scan = open_scan(tmp_path / name, method="cdi", **said)
        assert scan.counts.shape == (1, 16, 16) and scan.extra["dc"] == "centre" and isinstance(scan.geometry, FarField)
        np.testing.assert_array_equal(np.asarray(scan.counts)[0], frame)


def test_many_frames_without_positions_are_not_taken_for_one_pattern(tmp_path, capsys):
    with h5py.File(tmp_path / "a.cxi", "w") as file:
        file["cxi_version"] = 160
        file["entry_1/instrument_1/detector_1/data"] = np.random.default_rng(0).poisson(5.0, (6, 16, 16))
    with pytest.raises(MissingMetadata, match=r"each of 6 frames .*-m cdi.*data\.positions"):
        open_scan(tmp_path / "a.cxi")
    assert main(["reconstruct", str(tmp_path / "a.cxi"), "-o", str(tmp_path / "b.h5")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "-m cdi" in lines[0] and not (tmp_path / "b.h5").exists()
    assert open_scan(tmp_path / "a.cxi", method="cdi").views == 6
    scan = open_scan(tmp_path / "a.cxi", positions=np.arange(12.0).reshape(6, 2) % 5, positions_unit="pixel")
    assert scan.method == "far-field-ptychography"


def test_ends_of_a_rocking_curve_may_be_empty(tmp_path):
    counts = np.zeros((5, 8, 8), np.uint16)
    counts[1:4, 4, 4] = 100
    np.save(tmp_path / "a.npy", counts)
    assert open_scan(tmp_path / "a.npy", method="cdi").views == 5
    with pytest.raises(InputError, match="no counts at all"):
        open_scan(tmp_path / "a.npy", method="holotomography", angles=np.arange(5) / 5)

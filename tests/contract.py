"""What every forward model and every linear operator of the package promises, one line each.

A new model or operator is one row; `test_contract.py` then checks its transpose in both precisions, the gradient of
every unknown, parts of its views (known to a program or handed to it), counts of zero, and its way through a pytree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import small_scans

import diffrecon as dr
from diffrecon import operators as op
from diffrecon.motion import Motion
from diffrecon.operators import AlignedProjector, Dynamic, FourierPoseProjector, ParallelProjector
from diffrecon.simulate import holotomography, ptychotomography

# Small problems that the rows share, so that they share compiled programs.
ANGLES = np.linspace(0.1, 3.0, 7)
MOTION = {"shifts": np.tile([[0.3, -0.6]], (7, 1)), "roll": 0.03, "magnification": np.linspace(0.98, 1.02, 7)}


@dataclass(frozen=True)
class ModelRow:
    """A model of `views` views, made in the precision that is switched on.

    **Fields:** `unknowns`: names of fields, dotted where nested, whose gradients are checked, each with its scale
    (0 for its own size); `counts`: whether it predicts counts, which may be zero; `step` of the finite differences, a
    fraction of the scale.
    """

    make: Callable[[], Any]
    views: int
    unknowns: Mapping[str, float]
    counts: bool = True
    step: float = 1e-4


@dataclass(frozen=True)
class OperatorRow:
    """A linear operator and an argument that it takes, both made in the precision that is switched on.

    **Fields:** `views`: how many, for one whose calls and adjoint take some of them.
    """

    make: Callable[[], tuple[Any, Any]]
    views: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def real(values: Any) -> jax.Array:
    return jnp.asarray(values, jnp.result_type(float))


def waves(values: Any) -> jax.Array:
    return jnp.asarray(values, jnp.result_type(complex))


def smooth(shape: tuple[int, ...], height: float = 1.0) -> jax.Array:
    """A round blob off the middle: no derivative of it vanishes by symmetry."""
    grid = np.meshgrid(*(np.arange(n) - (n - 1) / 2 - 0.7 for n in shape), indexing="ij")
    return real(height * np.exp(-sum(g**2 for g in grid) / (2 * (max(shape) / 6) ** 2)))


def unknowns(*names: str, **scales: float) -> dict[str, float]:
    return dict.fromkeys(names, 0.0) | {name.replace("__", "."): scale for name, scale in scales.items()}


# ---------------------------------------------------------------------------------------------------- models
def parallel(**settings: Any) -> ParallelProjector:
    return ParallelProjector(ANGLES, (16, 17), 24, centre=12.3, dtype=jnp.result_type(float), **settings)


def aligned(**motion: Any) -> AlignedProjector:
    return AlignedProjector(ANGLES, (16, 17), (6, 24), Motion(12.3, **motion), slices=8)


def tomography():
    return dr.models.Tomography(smooth((2, 16, 17)), parallel(shifts=0.1 * np.arange(7)))


def aligned_tomography():
    return dr.models.Tomography(smooth((8, 16, 17)), aligned(**MOTION))


def changing() -> Dynamic:
    return Dynamic.splines(parallel(), np.arange(7.0), 3)


def tomography_in_time():
    volumes = jnp.stack([smooth((2, 16, 17)), smooth((2, 16, 17))[:, ::-1], smooth((2, 16, 17))[..., ::-1]])
    return dr.models.Tomography(volumes, changing())


def powder():
    """Two phases, one amorphous; strain, depth and absorption inside."""
    grid, rng = op.Grid(6, 1, 3.0), np.random.default_rng(4)
    pixels = int(grid.inside.sum())
    phase = lambda a: dr.models.Phase(np.array([a, 0.8 * a]) * 1e-10, np.array([1e5, 2e5]), 1.6e-28, 3e-8)
    two_theta = np.linspace(0.1, 0.2, 24)
    basis = dr.models.powder_basis(
        {"a": phase(3.1), "b": phase(2.7)}, two_theta, 4e-11, dr.models.Peaks(8e-3), 2e-5, 1e-3, np.full((1, 24), 50.0)
    )
    model = dr.models.PowderTomography(
        real(rng.uniform(0.1, 0.4, (3, pixels))), real(rng.uniform(-1, 1, (2, pixels))), basis,
        op.StripProjector(ANGLES, grid, 2.6, rng.uniform(0.5, 1, (7, 2, pixels))), real(rng.random((2, 24))),
        real(rng.uniform(-1, 1, (7, pixels))), real(rng.uniform(1e5, 2e5, (7, 6, 24))), real(np.full(24, 1e-3)),
    )  # fmt: skip
    return in_precision(model)


def powder_in_time():
    """The same, changing: two knots."""
    model, courses = powder(), np.linspace(0, 1, 7)[:, None]
    changes = lambda a: jnp.stack([a, a[..., ::-1]])
    return model.replace(
        fractions=changes(model.fractions),
        strains=changes(model.strains),
        courses=real(np.hstack([1 - courses, courses])),
    )


def transmission():
    volume = smooth((2, 16, 17), 0.05)
    return dr.models.TransmissionTomography(volume, parallel(), np.full((2, 24), 80.0), 3.0, flux=np.linspace(1, 2, 7))


def k_edge():
    table = np.array([[1.0, 0.2], [0.3, 0.8], [0.5, 0.5]])
    areal = jnp.stack([smooth((12, 10), 0.7), smooth((12, 10), 0.4)[::-1]])
    return dr.models.KEdge(areal, real(table), real(np.full((3, 1, 1), 100.0)), real(np.full((1, 1), 2.0)))


def k_edge_volume():
    """Two materials, two energies with a spectrum of two lines each; the second picture has moved."""
    table = np.array([[[1.0, 0.2], [0.9, 0.3]], [[0.3, 0.8], [0.35, 0.7]]])
    model = dr.models.KEdgeTomography.empty(
        (2, 16, 17), ANGLES, np.array([0, 0, 0, 0, 1, 1, 1]), table, np.full((2, 2), 0.5), 0.1,
        columns=np.array([0, 0.4]), beam=100.0, darks=2.0,
    )  # fmt: skip
    density = jnp.stack([smooth((2, 16, 17), 0.7), smooth((2, 16, 17), 0.4)[::-1]])
    return in_precision(model.replace(density=density))


def fluorescence():
    """Two components, a slice and a detector that sees them from the side and a little from above."""
    directions = np.array([[0.98, 0.1, 0.15], [0.95, -0.3, 0.05]])
    return dr.models.Fluorescence(
        jnp.stack([smooth((3, 10, 10)), 0.3 * smooth((3, 10, 10))[..., ::-1]]), real(np.ones((2, 1, 1, 1))),
        real(0.13 + 0.05 * np.arange(4)), real(np.ones(3)), real(ANGLES[:4] * 2), real(np.full((4, 3, 5, 3), 900.0)),
        real([[0.1, 0.0], [0.0, 0.2]]), real([[0.1, 0.2], [0.05, 0.1]]), real([0.02, 0.03]),
        op.Escape(directions, np.full((2, 2), 0.5)), 2,
    )  # fmt: skip


def of_elements(frames: bool):
    """Two elements and smooth rests in a fly scan through two modes: frames, or the elements' counts."""
    shape, rng = (20, 22), np.random.default_rng(2)
    elements = dr.models.Elements.empty(shape, np.array([[0.5, 0.7], [0.05, 0.02]])).replace(
        white=0.2 + jnp.stack([smooth(shape, 0.3), smooth(shape, 0.2)[::-1]]),
        rest=jnp.stack([smooth(shape), smooth(shape)]), plane=real([1.0, 2.0, -1.0, 0.5]),
        taken=real(np.full((2, 20, 12), 0.1)),
    )  # fmt: skip
    probe = waves(rng.standard_normal((2, 10, 12)) + 1j * rng.standard_normal((2, 10, 12)))
    optics = dr.models.Ptychography(
        waves(np.ones(shape)), probe, real([[2.3, 3.1], [5.2, 4.4], [6.8, 7.3]]), real(np.full((1, 1), 0.3)),
        real([1.0, 1.1, 0.9]), far=True, nodes=2, travel=real([[0.8, -0.4]]),
    )  # fmt: skip
    if frames:
        return in_precision(dr.models.ElementFrames(elements, optics))
    return in_precision(dr.models.ElementCounts(elements, optics, real([3.0, 5.0]), real(40.0), real([0.1, -0.2])))


def diffraction():
    support = np.zeros((16, 16), bool)
    support[4:10, 5:12] = True
    return dr.models.Diffraction(
        object=waves(smooth((16, 16)) * np.exp(0.3j)),
        support=jnp.asarray(support),
        coherence=real(0.5),
        background=real(1.0),
    )


def holography():
    """Every optional number of the geometry, and a named material."""
    geometry = dr.ConeBeam(17e3, np.array([0.0213333, 0.0259, 0.0332]), 1.28, 3e-6)
    scan = dr.Scan.from_arrays(np.full((3, 48, 48), 100.0), geometry=geometry, flux=100.0, method="holography")
    model = dr.models.Holography.from_scan(scan, delta_beta=20.0, materials={"gold": (1e-5, 1e-6)})
    blob = smooth(model.phase.shape, -0.5)
    return in_precision(
        model.replace(
            phase=blob,
            rotations=jnp.asarray([0.01, -0.02, 0.015]),
            stretch=jnp.full((3, 2), 1.01),
            source_blur=jnp.asarray(3e-8),
            detector_blur=jnp.asarray(0.6),
            thickness=-1e-6 * blob[None],
            shifts=jnp.asarray([[0.3, -0.2], [1.2, 0.4], [-0.7, 2.3]]),
        )
    )


def holotomographic():
    setup = holotomography.Setup(angles=3, distances=2, frame=20, counts=2000.0, grains=False, wobble=0.4, centre=0.7)
    model = dr.models.HoloTomography.from_scan(holotomography.measure(setup)[0], beta=True)
    blob = smooth(model.delta.shape, 0.02)
    model = model.replace(delta=blob, beta=blob / 30, delta_beta=jnp.asarray(40.0), dark=model.dark + 3.0)
    return in_precision(
        model, projector=ParallelProjector(model.projector.angles, model.projector.shape, model.projector.detector)
    )


def ptychotomographic():
    setup = ptychotomography.Setup(
        angles=4, views=2, step=5.0, frame=24, aperture=8.0, counts=400.0, wobble=0.0, position_error=0.0, centre=0.0
    )
    model = dr.models.PtychoTomography.from_scan(ptychotomography.measure(setup)[0])
    blob = smooth(model.delta.shape, 0.05)
    model = model.replace(
        delta=blob, beta=blob / 50, positions=jnp.floor(model.positions) + 0.2, centre=model.centre + 0.1
    )
    return in_precision(
        model, projector=ParallelProjector(model.projector.angles, model.projector.shape, model.projector.detector)
    )


def laminography():
    motion = Motion(4.1, shifts=np.full((3, 2), -0.1), roll=0.02, wobble=np.zeros((3, 2)))
    model = dr.models.Laminography.from_angles(ANGLES[:3], 1.1, (7, 8, 8), (9, 9), motion=motion)
    return model.replace(volume=smooth((7, 8, 8)))


def ptychography(near: bool) -> dr.models.Ptychography:
    """Every field at work: two slices of phase and attenuation, modes, variations, blur, drift, fly scan."""
    frames, obj, probe, positions = small_scans.make(near)
    rng = np.random.default_rng(3)
    noise = lambda *shape: rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    distance = small_scans.DISTANCE
    return dr.models.Ptychography(
        waves(np.stack([np.angle(obj) - 0.1j * np.log(abs(obj) + 0.1)] * 2) / 2),
        waves(np.stack([probe, 0.2 * probe * noise(*probe.shape)])),
        real(positions), real(np.full((1, 1), 0.3)), real(np.ones(len(frames))), real(distance),
        small_scans.WAVELENGTH, small_scans.PIXEL, not near, refractive=True, nodes=2,
        probe_variations=waves(0.1 * probe * noise(2, *probe.shape)),
        variation_weights=real(rng.standard_normal((len(frames), 2))), border=2 if near else 0,
        astigmatism=real(0.05 * distance), tilt=real(np.array([0.1, -0.2]) * distance / small_scans.PIXEL / 60),
        scan_matrix=real([[1.01, 0.02], [-0.01, 0.99]]), drift=real([[0.2, -0.1], [0.3, 0.2], [-0.2, 0.1]]),
        travel=real([[0.8, -0.4]]), source_blur=real([0.5, 0.7]), detector_blur=real([0.6, 0.4]),
        slice_spacing=real(0.1 * distance),
        efficiency=real(rng.uniform(0.5, 1, [n - 4 * near for n in frames.shape[1:]])),
    )  # fmt: skip


def saxs():
    turns = op.rotations_from_angles(np.arange(4) * 0.7, np.deg2rad([0, 0, 40, 40]))
    scan = dr.Scan.from_arrays(np.ones((4, 8, 8, 8))).replace(tensor_geometry=op.TensorGeometry(turns))
    model = dr.models.SaxsTensor.from_scan(scan, ell_max=2)
    return model.replace(coefficients=smooth(model.coefficients.shape))


def displaced_reference():
    shape, rng = (18, 20), np.random.default_rng(4)
    maps = dr.solvers.RefractionMaps.flat(
        real(np.stack([0 * smooth(shape)] * 2 + [smooth(shape, -0.3), smooth(shape)]))
    )
    maps = maps._replace(potential=smooth(maps.potential.shape, 9.0), tilt=real([0.2, -0.3]))
    pattern = real(rng.standard_normal((3, *shape)))
    return dr.models.DisplacedReference(
        maps, real([1.0, 1.1, 0.9]), real(0.3 * rng.standard_normal((3, 2))), real(np.full((3, *shape), 20.0)), pattern,
        real(np.ones(shape)), 1.0, 0.5, spread=3.0, blur=0.7,
    )  # fmt: skip


def interferometer_fringes():
    shape = (18, 20)
    still = np.stack([np.full(shape, 80.0), np.full(shape, 0.6), np.add.outer(np.arange(18) / 9, np.arange(20) / 4)])
    model = dr.models.InterferometerFringes.of_fringes(still, np.array([0.0, 0.3, 0.7]), blur=0.4)
    fields = {"phase": smooth(shape, 5.0), "attenuation": smooth(shape, -0.3), "visibility": smooth(shape)}
    return in_precision(model, flux=real([1.0, 1.1, 0.9]), **fields)


def in_precision(model: Any, **fields: Any) -> Any:
    """A model whose makers know single precision only, in the one that is switched on."""
    cast = lambda a: a.astype(jnp.result_type(complex if jnp.iscomplexobj(a) else float))
    model = jax.tree.map(lambda a: cast(a) if eqx.is_inexact_array(a) else a, model)
    return model.replace(**fields) if fields else model


PTYCHOGRAPHY = unknowns(
    "object", "probe", "positions", "background", "gain", "probe_variations", "variation_weights", "scan_matrix",
    "drift", "travel", "source_blur", "detector_blur", "slice_spacing",
)  # fmt: skip
MODELS = {
    "tomography": ModelRow(
        tomography, 7, unknowns("volume", projector__centre=1.0, projector__shifts=1.0), counts=False
    ),
    "tomography, moving": ModelRow(
        aligned_tomography,
        7,
        unknowns("volume", projector__motion__shifts=1.0, projector__motion__roll=0.1, projector__motion__centre=1.0),
        counts=False,
    ),
    "tomography in time": ModelRow(
        tomography_in_time,
        7,
        unknowns("volume", "projector.temporal", projector__projector__centre=1.0),
        counts=False,
    ),
    "transmission": ModelRow(transmission, 7, unknowns("volume", "flux", "flats", "darks")),
    "k-edge": ModelRow(k_edge, 3, unknowns("areal", "attenuation", "flats", "darks")),
    "k-edge tomography": ModelRow(k_edge_volume, 7, unknowns("density", "beam", drift=0.1, gain=0.1, moves=1.0)),
    "powder tomography": ModelRow(powder, 7, unknowns("fractions", strains=1.0)),
    "powder tomography in time": ModelRow(powder_in_time, 7, unknowns("fractions", strains=1.0)),
    "fluorescence": ModelRow(
        fluorescence,
        4,
        unknowns("scaled", "unit", "gain", "emission", "lines", offsets=1.0),
        step=1e-6,  # bilinear interpolation has a kink at every voxel: a short difference seldom goes over one
    ),
    "frames of elements": ModelRow(
        lambda: of_elements(True),
        3,
        unknowns("elements.white", "elements.rest", "elements.plane", "optics.probe", optics__positions=1.0),
    ),  # fmt: skip
    "counts of elements": ModelRow(
        lambda: of_elements(False),
        3,
        unknowns(
            "elements.white", "optics.probe", "optics.gain", "photons", "emission", optics__positions=1.0, offset=1.0
        ),
    ),  # fmt: skip
    "diffraction": ModelRow(diffraction, 2, unknowns("object", "coherence", "background")),
    "holography": ModelRow(
        holography,
        3,
        unknowns("phase", "attenuation", "delta_beta", "flux", "shifts", "distances", "rotations", "stretch")
        | unknowns("source_blur", "detector_blur", "thickness", "refraction", attenuation=0.1),
    ),
    "holotomography": ModelRow(
        holotomographic,
        3,
        unknowns("delta", "beta", "delta_beta", "gain", "flux", "dark", "distances", shifts=1.0, centre=1.0),
    ),
    "ptycho-tomography": ModelRow(
        ptychotomographic,
        4,
        unknowns("delta", "beta", "gain", "optics.probe", shifts=1.0, centre=1.0, positions=1.0),
    ),
    "laminography": ModelRow(
        laminography,
        3,
        unknowns("volume", **{f"projector__motion__{name}": 1.0 for name in ("tilt", "roll", "shifts", "wobble")}),
        counts=False,
        step=1e-6,  # the window of the projector ends in small steps: a short difference seldom goes over one
    ),
    "near-field ptychography": ModelRow(
        lambda: ptychography(True), 36, PTYCHOGRAPHY | unknowns("distance", "astigmatism", "tilt")
    ),
    "far-field ptychography": ModelRow(lambda: ptychography(False), 36, PTYCHOGRAPHY),
    "displaced reference": ModelRow(
        displaced_reference,
        3,
        unknowns(
            "maps.potential", "maps.attenuation", "maps.visibility", "structure", "flux", maps__tilt=1.0, drift=1.0
        ),
    ),
    "interferometer": ModelRow(
        interferometer_fringes, 3, unknowns("phase", "attenuation", "visibility", "flux", step=1.0)
    ),
    "tensor SAXS": ModelRow(saxs, 4, unknowns("coefficients"), counts=False),
}


# ---------------------------------------------------------------------------------------------------- operators
def poses() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two tilts of three views each, and two views from anywhere."""
    angles = np.tile(np.arange(3) * 2.1, 2) + np.repeat([0.0, 0.1], 3)
    tilted = op.laminography_poses(angles, np.repeat([0.0, 0.7], 3))
    anywhere = np.linalg.qr(np.random.default_rng(1).standard_normal((2, 3, 3)))[0]
    return tuple(np.concatenate([np.asarray(v), anywhere[:, i]]) for i, v in enumerate(tilted))  # pyright: ignore


def tensor():
    turns = op.rotations_from_angles(np.array([0.3, 2.0, 4.1]), np.array([0.0, 0.5, 0.8]))
    A = op.TensorProjector(op.TensorGeometry(turns, offsets=np.full((3, 2), 0.3)), (6, 7, 8), (9, 8), 4)
    return A, real(np.zeros((6, 7, 8, 15)))


class Linear:
    """A linear function with the adjoint that jax derives, or a given one."""

    def __init__(self, forward: Callable, like: Any, adjoint: Callable | None = None):
        self.forward, self.adjoint = forward, adjoint or op.adjoint_of(forward, like)

    def __call__(self, x: Any) -> Any:
        return self.forward(x)


def linear(forward: Callable, like: Any, adjoint: Callable | None = None) -> tuple[Linear, Any]:
    return Linear(forward, like, adjoint), like


def fresnel(shape: tuple[int, int]) -> jax.Array:
    dtype = jnp.result_type(complex)
    return op.fresnel_transfer(shape, pixel_size=50e-9, wavelength=7e-11, distance=0.02, dtype=dtype)


def propagation():
    transfer = fresnel((24, 40))
    back = lambda u: op.propagate(u, jnp.conj(transfer))
    return linear(lambda u: op.propagate(u, transfer), waves(np.zeros((2, 24, 40))), back)


def far_field_of_waves():
    return linear(op.fraunhofer, waves(np.zeros((2, 12, 16))), lambda far: jnp.fft.ifft2(far, norm="ortho"))


def vacuum():
    transfer = fresnel((24, 40))
    return linear(lambda u: op.propagate_in_vacuum(u, transfer, 0.0), waves(np.zeros((17, 30))))


def exit_wave(near: bool, of_object: bool):
    rng = np.random.default_rng(0)
    obj, probe = (waves(op.random_like(np.zeros(s, complex), 0)) for s in ((40, 44), (2, 12, 16)))
    positions, transfer = real(rng.uniform(1, 24, (5, 2))), fresnel((12, 16))

    def forward(u):
        o, p = (u, probe) if of_object else (obj, u)
        return op.near_field(o, p, positions, transfer) if near else op.far_field(o, p, positions)

    return linear(forward, obj if of_object else probe)


def patches():
    corners = jnp.asarray([[0, 0], [3, 5], [28, 28], [3, 4]])
    put = lambda p: op.deposit(jnp.zeros((40, 44), p.dtype), corners, p)
    return linear(lambda o: op.extract(o, corners, (12, 16)), waves(np.zeros((40, 44))), put)


def strips():
    grid = op.Grid(8, 2, 4.0)
    factors = np.random.default_rng(3).random((7, 2, int(grid.inside.sum())))
    return op.StripProjector(ANGLES, grid, 3.3, factors), real(np.zeros((3, int(grid.inside.sum()))))


def channels():
    light = np.random.default_rng(4).random((7, 5, 8))
    A = op.PatternProjector.of(strips()[0], op.Grid(8, 2, 4.0), [0, 0, 1, 1, 1], ANGLES, light)
    return A, real(np.zeros((5, 16, 16)))


def azimuthal(splitting: str):
    detector = dr.geometry.TiltedDetector(0.15, 0.0007, 0.0009, 0.1, 0.05, 0.0, 1e-4, 1e-4)
    A = op.AzimuthalIntegrator(detector, (16, 17), op.Cake(0.1, 0.13, 12, 2), splitting=splitting, polarisation=0.9)
    return A, real(np.zeros((2, 16, 17)))


def turned_to_beam():
    forward = lambda v: op.turn_to_beam(v, real(ANGLES), real(0.3 * np.arange(7)))
    like = real(np.zeros((11, 11, 2)))
    return linear(forward, like, lambda y: jax.vjp(forward, like)[1](y)[0])


def pixels():
    rows, columns = (op.pixel_matrix(n, 32, ratio=1.4, shift=0.2, dtype=jnp.result_type(float)) for n in (20, 18))
    angle = real(0.1)
    return linear(lambda u: op.to_pixels(op.rotate_periodic(u, angle), rows, columns), real(np.zeros((32, 32))))


def microscope():
    settings = {"outermost_zone": 40e-9, "pixel_size": 10e-9, "points": 8, "condenser": (0.3, 0.7)}
    image = op.ZonePlateMicroscope.make(8e3, **settings, defocus=1e-6, stop=0.2)
    return linear(lambda maps: image.weak_image(*maps), (real(np.zeros((16, 20))), real(np.zeros((16, 20)))))


def displaced_pattern():
    moved = jnp.stack([smooth((14, 16), 1.3), smooth((14, 16), -0.8)])
    look = lambda images: op.displaced(op.displacement_coefficients(images, real([[0.2, -0.4], [0.0, 0.3]])), moved)
    return linear(look, real(np.zeros((2, 14, 16))))


OPERATORS = {
    "displaced pattern": OperatorRow(displaced_pattern),
    "slopes": OperatorRow(lambda: linear(op.slopes_of, real(np.zeros((9, 12))), op.slopes_transposed)),
    "parallel": OperatorRow(lambda: (parallel(), real(np.zeros((2, 16, 17)))), 7),
    "parallel, shifted": OperatorRow(lambda: (parallel(shifts=0.4 * np.arange(7)), real(np.zeros((16, 17)))), 7),
    "normal equations": OperatorRow(lambda: (parallel_square().normal(), real(np.zeros((16, 16))))),
    "moved pictures": OperatorRow(lambda: (aligned(**MOTION), real(np.zeros((8, 16, 17)))), 7),
    "turned": OperatorRow(lambda: (aligned(angles=0.02 * ANGLES, roll=-0.04), real(np.zeros((8, 16, 17)))), 7),
    "posed": OperatorRow(lambda: (aligned(pitch=0.07, **MOTION), real(np.zeros((8, 16, 17)))), 7),
    "any pose": OperatorRow(
        lambda: (FourierPoseProjector(*poses(), (7, 9, 8), (10, 11), 0.3 * np.ones((8, 2))), real(np.zeros((7, 9, 8)))),
        8,
    ),
    "in time": OperatorRow(lambda: (changing(), real(np.zeros((3, 2, 16, 17)))), 7),
    "tensor": OperatorRow(tensor, 3),
    "propagation": OperatorRow(propagation),
    "propagation in vacuum": OperatorRow(vacuum),
    "Fraunhofer": OperatorRow(
        lambda: linear(op.fraunhofer, waves(np.zeros((2, 12, 16))), lambda far: jnp.fft.ifft2(far, norm="ortho"))
    ),
    "near field of an object": OperatorRow(lambda: exit_wave(True, True)),
    "near field of a probe": OperatorRow(lambda: exit_wave(True, False)),
    "far field of an object": OperatorRow(lambda: exit_wave(False, True)),
    "far field of a probe": OperatorRow(lambda: exit_wave(False, False)),
    "patches": OperatorRow(patches),
    "pixels": OperatorRow(pixels),
    "strips": OperatorRow(strips),
    "channels": OperatorRow(channels, views=7),
    "turned to the beam": OperatorRow(turned_to_beam),
    "azimuthal integration": OperatorRow(lambda: azimuthal("no")),
    "azimuthal integration, split": OperatorRow(lambda: azimuthal("bbox")),
    "microscope": OperatorRow(microscope),
}


def parallel_square() -> ParallelProjector:
    return ParallelProjector(ANGLES, (16, 16), 24, dtype=jnp.result_type(float))

"""mumott HDF5 files of SAXS tensor tomography (https://mumott.org): projections/N/{data (J,K,segment), diode, ...}.

Rows of diffrecon's frames are mumott's K (along the rotation axis), columns its J: counts are `(view, K, J, segment)`.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..._hdf5 import native, need_filters, open_hdf5
from ...errors import InputError
from ...geometry import TensorGeometry
from .._lazy import PerView
from ..source import Source

_NAMES = {
    "inner_angle": "rotations",
    "outer_angle": "tilts",
    "j_offset": "offset_j",
    "k_offset": "offset_k",
    "rotation_matrix": "rot_mat",
}  # present name -> name of older files
_DIRECTIONS = {
    "p_direction_0": (0, 1, 0),
    "j_direction_0": (1, 0, 0),
    "k_direction_0": (0, 0, 1),
    "detector_direction_origin": (1, 0, 0),
    "detector_direction_positive_90": (0, 0, 1),
}


class _Projection:
    """One view of the file: its datasets by name, which are listed once."""

    def __init__(self, source: Source, view: str):
        self.source, self.view = source, view
        self.names = frozenset(source.file[f"projections/{view}"])

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def numbers(self, name: str, what: str) -> np.ndarray:
        return self.source.numbers(f"projections/{self.view}/{name}", what)


def probe(source: Source) -> bool:
    """Tell whether this is a mumott file."""
    return source.has("projections") and source.has("projections/0")


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read frames (lazy), transmission, weights, and the geometry of every view."""
    views = _views(source)
    projections = [_Projection(source, n) for n in views]
    stored = [source.dataset(f"projections/{n}/data", "frames") for n in views]
    if any(d.dtype.kind not in "iuf" for d in stored):
        raise InputError(
            f"{source.name}: projections/N/data must be numbers; found {sorted({str(d.dtype) for d in stored})}"
        )
    shapes = [d.shape for d in stored]
    if any(len(shape) != 3 or shape[2] != shapes[0][2] or 0 in shape for shape in shapes):
        raise InputError(
            f"{source.name}: projections/N/data must be (J, K, segment) with one number of segments; "
            f"shapes found: {sorted(set(shapes))}"
        )
    whole = (max(s[1] for s in shapes), max(s[0] for s in shapes))
    if len(set(shapes)) > 1:
        source.say(f"projections of different sizes are padded to {whole[0]} x {whole[1]} pixels with weight 0")
    load = functools.partial(_frames, source.path, views, whole)
    source.say("data taken as mumott keeps it: divided by flux and transmission already")
    found = {
        "counts": PerView(load, len(views), (*whole, shapes[0][2]), np.result_type(*{native(d.dtype) for d in stored})),
        "weights": np.stack([_weights(p, whole, shape) for p, shape in zip(projections, shapes, strict=True)]),
        "method": "saxs-tensor-tomography",
        "tensor_geometry": _geometry(projections, whole, shapes, given),
    }
    if all("diode" in p for p in projections):
        found["transmission"] = np.stack(
            [_padded(_transmission(p, s).T, whole, 1.0) for p, s in zip(projections, shapes, strict=True)]
        )
    else:
        source.say("no transmission (diode) for every projection")
    return found


def _views(source: Source) -> list[str]:
    views = sorted(source.file["projections"], key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n))
    if not all(n.isdigit() for n in views):
        raise InputError(f"{source.name}: projections are to be numbered 0, 1, ...; found {views[-1]!r}")
    return views


def _frames(path: Path, views: list[str], whole: tuple[int, int], wanted: np.ndarray) -> Iterator[np.ndarray]:
    with open_hdf5(path) as file:
        for view in wanted:
            stored = file[f"projections/{views[view]}/data"]
            need_filters(stored)
            try:
                values = stored[()]
            except OSError as error:
                raise InputError(
                    f"{path.name}: {stored.name} cannot be read, the file is damaged or incomplete "
                    f"({str(error).splitlines()[0]})"
                ) from error
            yield _padded(values.transpose(1, 0, 2), whole, 0)


def _padded(values: np.ndarray, whole: tuple[int, int], fill: float) -> np.ndarray:
    missing = [(0, whole[0] - values.shape[0]), (0, whole[1] - values.shape[1])] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values, missing, constant_values=fill) if any(m[1] for m in missing) else values


def _weights(projection: _Projection, whole: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    source, name = projection.source, projection.view
    if "weights" not in projection:
        return _padded(np.ones((shape[1], shape[0], shape[2]), np.float32), whole, 0)
    weights = projection.numbers("weights", "weights").astype(np.float32)
    if not np.isfinite(weights).all():
        raise InputError(f"{source.name}: projections/{name}/weights holds values that are not finite")
    try:
        whole_weights = np.broadcast_to(weights if weights.ndim != 2 else weights[..., None], shape)
    except ValueError:
        raise InputError(
            f"{source.name}: projections/{name}/weights has shape {weights.shape}, its data {shape}"
        ) from None
    return _padded(whole_weights.transpose(1, 0, 2), whole, 0)


def _transmission(projection: _Projection, shape: tuple[int, ...]) -> np.ndarray:
    source, name, diode = projection.source, projection.view, projection.numbers("diode", "transmission")
    if diode.shape != shape[:2] or not np.isfinite(diode).all():
        raise InputError(
            f"{source.name}: projections/{name}/diode is to be {shape[:2]} finite numbers; its shape is {diode.shape}"
        )
    return diode


def _geometry(
    projections: list[_Projection], whole: tuple[int, int], shapes: list[tuple[int, ...]], given: dict[str, Any]
) -> Any:
    source = projections[0].source
    # Padding at the end moves the middle of the frame by half of it.
    pad = np.array([[(whole[0] - s[1]) / 2, (whole[1] - s[0]) / 2] for s in shapes])
    offsets = np.array([[_offset(p, "k_offset"), _offset(p, "j_offset")] for p in projections])
    vectors = [
        source.numbers(name, name).astype(float).ravel() if source.has(name) else np.array(usual, float)
        for name, usual in _DIRECTIONS.items()
    ]
    two_theta = source.number("two_theta", "scattering angle", "rad")
    if two_theta is None and source.has("two_theta") and "two_theta" not in given:
        raise InputError(
            f"{source.name}: two_theta is to be one angle; one scattering angle at a time is reconstructed: make a "
            'file of each, and say geometry.two_theta="12 deg" where the file has none'
        )
    return TensorGeometry(
        _rotations(projections),
        offsets + pad,
        *vectors_in_order(vectors, source),
        two_theta=given.get("two_theta", two_theta or 0.0),
    )


def vectors_in_order(vectors: list[np.ndarray], source: Source) -> tuple[np.ndarray, ...]:
    """Order p0, j0, k0, detector angles, o0, u0, as `TensorGeometry` takes them."""
    beam, column, row, origin, positive_90 = vectors
    angles = source.numbers("detector_angles", "azimuths of the detector's segments").astype(float).ravel()
    if np.abs(angles).max(initial=0) > 2.1 * np.pi:
        source.say("detector_angles taken as degrees by their magnitude")
        angles = np.radians(angles)
    return beam, column, row, angles, origin, positive_90


def _value(projection: _Projection, name: str) -> float | None:
    """A number of a projection under its present or its older name; `None` where it has none.

    **Raises:** `InputError` for something else than one finite number.
    """
    for key in (name, _NAMES[name]):
        if key in projection:
            numbers = projection.numbers(key, name).ravel().astype(float)
            if numbers.size < 1 or not np.isfinite(numbers).all() or np.ptp(numbers):
                where = f"{projection.source.name}: projections/{projection.view}/{key}"
                raise InputError(f"{where} is to be one finite number, not {numbers}")
            return float(numbers[0])
    return None


def _offset(projection: _Projection, name: str) -> float:
    value = _value(projection, name)
    if value is None:
        projection.source.say(f"projections/{projection.view} has no {name}: taken as 0")
    return value or 0.0


def _axis(projection: _Projection, name: str, usual: tuple[float, float, float]) -> np.ndarray:
    source, view = projection.source, projection.view
    for key in (f"projections/{view}/{name}", name, f"projections/0/{name}"):
        if source.has(key):
            return source.numbers(key, name).astype(float).ravel()
    return np.array(usual, float)


def _rotations(projections: list[_Projection]) -> np.ndarray:
    """`R_n = R_outer R_inner`, from the matrices of the file or from its angles and axes."""
    rotations = []
    for projection in projections:
        inner, outer = (_value(projection, f"{which}_angle") for which in ("inner", "outer"))
        stored = next((name for name in ("rotation_matrix", "rot_mat") if name in projection), None)
        if stored is not None:
            rotations.append(projection.numbers(stored, "rotation matrix").astype(float))
        elif inner is None and outer is None:
            raise InputError(
                f"{projection.source.name}: projections/{projection.view} has neither rotation_matrix nor inner_angle "
                "and outer_angle"
            )
        else:
            rotations.append(
                rotation(_axis(projection, "outer_axis", (1, 0, 0)), outer or 0.0)
                @ rotation(_axis(projection, "inner_axis", (0, 0, -1)), inner or 0.0)
            )
    for projection, matrix in zip(projections, rotations, strict=True):
        whole = matrix.shape == (3, 3) and np.abs(matrix).max() < 1.01
        if not whole or np.abs(matrix @ matrix.T - np.eye(3)).max() > 1e-3:
            name = projection.source.name
            raise InputError(f"{name}: the rotation matrix of projection {projection.view} is no rotation")
    return np.stack(rotations)


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Make a rotation by `angle` [rad] about `axis`, right-handed (Rodrigues)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross

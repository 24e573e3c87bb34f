"""What orientations of a sample do to the noise of functions of direction."""

import numpy as np

from ..errors import InputError
from ..operators.scattering import harmonic_degrees, real_harmonics

_INCLINATIONS = 24  # of spatial frequencies, for the mean over them
_BLIND = 1e12  # condition of the information beyond which rounding decides


def noise_of_orders(order: int, largest_tilt: float, segments: int) -> tuple[float, float]:
    """Compute the noise of coefficients of order 0 and 2, mean over directions of the fibre; 2 were it density alone.

    A view tells spatial frequencies k across its beam p, and directions of scattering across p. Beams even over the
    band up to the tilt (area 4 pi s, s its sine) give k, at the angle c from the axis, the information `1 / (4 pi s k)
    integral dphi <Y Y^T>` over the part `|sin(phi)| <= s / sin(c)` of the circle of beams across k: beyond the tilt
    some are missing. The mean over fibres in all directions is that over the coefficients of an order (Schur).

    **Raises:** `InputError` where the tilts do not tell the order.
    """
    sine, cosine = np.sin(largest_tilt), np.cos(largest_tilt)
    nodes, weights = np.polynomial.legendre.leggauss(_INCLINATIONS)
    turn = np.pi / 4 * (nodes + 1)  # cos(c) = cosine sin(turn): smooth where the circle begins to be cut
    reach = np.append(np.arctan2(sine, cosine * np.cos(turn)), np.pi / 2)
    share = np.append(np.pi / 4 * weights * cosine * np.cos(turn), 1 - cosine)
    nodes, weights = np.polynomial.legendre.leggauss(order + 12)
    phi = reach[:, None, None] * nodes[:, None]
    chi = 2 * np.pi * np.arange(2 * order + 8) / (2 * order + 8)
    across = np.sin(chi) * np.cos(phi), np.sin(chi) * np.sin(phi), np.cos(chi) + 0 * phi  # in the frame of k
    values = np.fft.fft(real_harmonics(np.stack(across, -1), order), axis=-2, norm="forward")
    values *= np.sinc(np.fft.fftfreq(len(chi), 1 / len(chi)) / (2 * segments))[:, None]  # mean over a segment's arc
    values = (np.sqrt(weights)[:, None, None] * values).reshape(len(reach), -1, values.shape[-1])
    told = (values.conj().swapaxes(1, 2) @ values).real * reach[:, None, None]
    if np.max(np.linalg.cond(told)) > _BLIND:
        raise InputError(
            f"tilts up to {np.degrees(largest_tilt):.3g} degrees do not tell harmonics of order {order}: a larger "
            "largest_tilt, or a lower order"
        )
    inverse = share @ np.diagonal(np.linalg.inv(told / (2 * np.pi * sine)), axis1=1, axis2=2)
    degrees = harmonic_degrees(order)[0]
    return float(inverse[0]), float(np.mean(inverse[degrees == 2]))

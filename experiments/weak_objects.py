"""Holograms of objects in plain NumPy, independent of the operators, and the linear reconstruction of weak ones.

Sampled three times finer than the reconstruction, in vacuum twice as wide, exact integration over each distance's own
pixels, Poisson noise.
"""

import numpy as np
from scipy import ndimage

FINE = 3


def ellipsoids(random: np.random.Generator, frame: int, count: int) -> np.ndarray:
    """Thickness `(y, x)` on the fine grid of overlapping ellipsoids within the frame, up to a factor."""
    size = 2 * frame * FINE
    axis = (np.arange(size) - (size - 1) / 2) / FINE / frame
    image = np.zeros((size, size))
    for _ in range(count):
        distance, turn = 0.34 * np.sqrt(random.random()), 2 * np.pi * random.random()
        a = random.uniform(0.01, 0.1)
        b = a * random.uniform(0.5, 1)
        inside = (
            1 - ((axis[None] - distance * np.cos(turn)) / a) ** 2 - ((axis[:, None] - distance * np.sin(turn)) / b) ** 2
        )
        image += random.choice([-0.5, 1.0]) * a * np.sqrt(np.clip(inside, 0, None))
    return ndimage.gaussian_filter(image, 1.2, mode="wrap")


def holograms(phase, attenuation, pixel, wavelength, distances, pixels, frame) -> list[np.ndarray]:
    """Mean intensities of every distance on its own pixels; `phase`, `attenuation` on the fine grid of `pixel / 3`."""
    size, fine = phase.shape[0], pixel / FINE
    scattered = np.fft.fft2(np.exp(1j * phase - attenuation) - 1)
    f = np.fft.fftfreq(size, fine)
    images = []
    for distance, detector in zip(distances, pixels, strict=True):
        chirp = np.exp(-1j * np.pi * wavelength * distance * f**2)
        intensity = np.abs(1 + np.fft.ifft2(scattered * chirp[:, None] * chirp)) ** 2
        places = (np.arange(frame) - (frame - 1) / 2) * detector + (size - 1) / 2 * fine
        kernel = np.exp(2j * np.pi * np.outer(places, f)) * np.sinc(f * detector) / size
        images.append((kernel @ np.fft.fft2(intensity) @ kernel.T).real)
    return images


def binned(image: np.ndarray, frame: int) -> np.ndarray:
    """Mean over the pixels of the field of view."""
    start = (image.shape[0] - frame * FINE) // 2
    part = image[start : start + frame * FINE, start : start + frame * FINE]
    return part.reshape(frame, FINE, frame, FINE).mean((1, 3))


def wiener(images, counts, setup, pixel, power, attenuation_power=None, ratio=0.0) -> np.ndarray:
    """Phase of a weak object from contrasts `I - 1`, counts of each distance on its own pixel, and prior powers.

    Every image is resampled on `pixel` (cubic spline). Attenuation is `ratio` times the phase, or with
    `attenuation_power` an unknown of its own. `power` of `fft2(map, norm="ortho")`, a function of the frequency [1/m].
    """
    frame = images[0].shape[0]
    size = 2 * frame
    f = np.hypot(np.fft.fftfreq(size, pixel)[:, None], np.fft.fftfreq(size, pixel))
    chi = np.pi * setup.wavelength * setup.distances[:, None, None] * f**2
    # Beyond its own Nyquist frequency a coarse pixel aliases: nothing is taken from there.
    line = np.fft.fftfreq(size, pixel)
    box = [np.sinc(line * p) * (np.abs(line) <= 0.5 / p) for p in setup.pixels]
    seen = np.stack([b[:, None] * b for b in box])
    sine, cosine = 2 * seen * np.sin(chi), -2 * seen * np.cos(chi)
    sine = sine + ratio * cosine
    weight = (np.asarray(counts) * (pixel / setup.pixels) ** 2)[:, None, None]
    centre = np.arange(frame) - (frame - 1) / 2
    spectra = []
    for image, own in zip(images, setup.pixels, strict=True):
        place = centre * pixel / own + (frame - 1) / 2
        resampled = ndimage.map_coordinates(image, np.meshgrid(place, place, indexing="ij"), order=3, mode="nearest")
        spectra.append(np.fft.fft2(resampled, s=(size, size), norm="ortho"))
    pull = np.sum(weight * sine * np.array(spectra), 0)
    information = np.sum(weight * sine**2, 0) + 1 / power(f)
    if attenuation_power is not None:
        other = np.sum(weight * cosine**2, 0) + 1 / attenuation_power(f)
        across = np.sum(weight * sine * cosine, 0)
        pull = pull - across / other * np.sum(weight * cosine * np.array(spectra), 0)
        information = information - across**2 / other
    return np.fft.ifft2(pull / information, norm="ortho").real[:frame, :frame]


def power_law(rms: float, pixel: float, frame: int, slope: float = -3.5):
    """Prior power with a given root mean square over the frame, cut at one period of the frame."""
    f = np.hypot(np.fft.fftfreq(frame, pixel)[:, None], np.fft.fftfreq(frame, pixel))
    lowest = 1 / (frame * pixel)
    level = rms**2 / np.mean(np.maximum(f, lowest) ** slope)
    return lambda q: level * np.maximum(q, lowest) ** slope

"""Figures of docs/phase_retrieval.md: paddings, regularisation, methods. Run: python docs/figures/phase_figures.py

Objects are sums of discs and Gaussians on pixels half the size, in a field four times as wide, so that nothing of the
retrieval is used to make the holograms (NumPy, float64).
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import diffrecon as dr

HERE = Path(__file__).parent
N, PIXEL, WAVELENGTH, PHOTONS = 256, 5e-8, 7.2932e-11, 4000.0
DISTANCES = (0.0055, 0.0065, 0.0085, 0.012)
RATIO = 2000.0
BEAM = dict(pixel_size=PIXEL, wavelength=WAVELENGTH)
GREY = dict(cmap="gray")


def thickness(cut: bool, seed: int = 4) -> np.ndarray:
    """0 .. 1 on 2 N pixels; `cut`: the sample leaves the image on the left and at the bottom."""
    rng = np.random.default_rng(seed)
    x = (np.arange(8 * N) + 0.5) / 2 - 2 * N
    y0, x0, a = (0.35 * N, -0.35 * N, 0.62 * N) if cut else (0.0, 0.0, 0.33 * N)
    ball = lambda cy, cx, r: np.sqrt(np.clip(1 - ((x[:, None] - cy) ** 2 + (x - cx) ** 2) / r**2, 0, None))
    total = ball(y0, x0, a)
    for _ in range(40):
        r, turn = 0.8 * a * np.sqrt(rng.random()), 2 * np.pi * rng.random()
        size = rng.uniform(0.01, 0.08) * N
        total += rng.choice([-0.25, 0.25]) * ball(y0 + r * np.sin(turn), x0 + r * np.cos(turn), size) * size / (0.08 * N)
    return total


def measured(peak: float, cut: bool, ratio: float = RATIO, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth and noisy holograms `(distance, y, x)`."""
    phase = -peak * thickness(cut)
    f2 = np.fft.fftfreq(8 * N, PIXEL / 2) ** 2
    phase = np.fft.ifft2(np.fft.fft2(phase) * np.exp(-2 * np.pi**2 * 25e-9**2 * (f2[:, None] + f2))).real
    spectrum = np.fft.fft2(np.exp((1j + 1 / ratio) * phase) - 1)
    binned = lambda a: a[3 * N:5 * N, 3 * N:5 * N].reshape(N, 2, N, 2).mean((1, 3))
    rng = np.random.default_rng(seed)
    images = []
    for d in DISTANCES:
        kernel = np.exp(-1j * np.pi * WAVELENGTH * d * f2)
        image = np.abs(1 + np.fft.ifft2(spectrum * kernel[:, None] * kernel)) ** 2
        images.append(rng.poisson(binned(image) * PHOTONS) / PHOTONS)
    return binned(phase), np.stack(images).astype("f4")


def error(found, truth) -> float:
    """Relative, without the constant and 16 pixels of border."""
    middle = np.s_[16:-16, 16:-16]
    left, truth = np.asarray(found, float)[middle] - truth[middle], truth[middle]
    return float(np.linalg.norm(left - left.mean()) / np.linalg.norm(truth - truth.mean()))


def edge_padded(image: np.ndarray, d: float) -> np.ndarray:
    """Paganin's filter with the border pixels repeated, which diffrecon does not offer: to show why."""
    half = N // 2
    padded = np.pad(image.astype(float), half, mode="edge")
    fy, fx = np.fft.fftfreq(2 * N), np.fft.rfftfreq(2 * N)
    gain = 1 / (1 + np.pi * WAVELENGTH * d * RATIO / PIXEL**2 * (fy[:, None] ** 2 + fx**2))
    contact = np.fft.irfft2(np.fft.rfft2(padded) * gain, s=padded.shape)[half:-half, half:-half]
    return 0.5 * RATIO * np.log(contact)


def show(ax, image, limits, title, word=""):
    """An image, its mean level that of the limits' middle."""
    image = np.asarray(image, float)
    ax.imshow(image, vmin=limits[0], vmax=limits[1], **GREY)
    ax.set_title(title, fontsize=7, pad=3)
    ax.text(0.03, 0.04, word, transform=ax.transAxes, fontsize=6.5, color="white",
            bbox=dict(facecolor="black", alpha=0.6, pad=1.5, linewidth=0))
    ax.set_xticks([])
    ax.set_yticks([])


def aligned(found, truth):
    """With the constant that the metric removes."""
    return np.asarray(found, float) - np.mean(np.asarray(found, float)[16:-16, 16:-16] - truth[16:-16, 16:-16])


def paddings():
    """Rows: isolated and cut sample; columns: truth, Paganin by padding, ctf by padding."""
    figure, axes = plt.subplots(4, 5, figsize=(7.2, 6.2), layout="constrained")
    for row, cut in ((0, False), (2, True)):
        truth, images = measured(0.35, cut)
        limits = (truth.min() * 1.25, -truth.min() * 0.25)
        name = "cut by the border" if cut else "isolated"
        show(axes[row, 0], truth, limits, f"truth, {name}")
        options = dict(distance=DISTANCES[0], delta_beta=RATIO, **BEAM)
        maps = [(f"Paganin, {o}", dr.solvers.paganin(images[0], outside=o, **options))
                for o in ("vacuum", "mirror", "smooth")]
        maps.append(("Paganin, border repeated", edge_padded(images[0], DISTANCES[0])))
        for ax, (title, found) in zip(axes[row, 1:], maps, strict=True):
            show(ax, aligned(found, truth), limits, title, f"error {error(found, truth):.3g}")
        show(axes[row + 1, 0], images[0], (0.85, 1.15), "first of four holograms")
        for ax, o in zip(axes[row + 1, 1:], ("vacuum", "mirror", "smooth", "unmeasured"), strict=True):
            found = dr.solvers.ctf(images, distances=DISTANCES, delta_beta=RATIO, outside=o, **BEAM).phase
            show(ax, aligned(found, truth), limits, f"CTF, {o}", f"error {error(found, truth):.3g}")
            print(name, o, error(found, truth))
    save(figure, "phase_paddings.png", 88)


def regularisations():
    """One isolated sample: levels by hand, learnt; L-curve; error against strength."""
    truth, images = measured(0.35, False)
    limits = (truth.min() * 1.25, -truth.min() * 0.25)
    options = dict(distances=DISTANCES, delta_beta=RATIO, **BEAM)
    figure, axes = plt.subplots(2, 3, figsize=(7.2, 4.9), layout="constrained")
    learnt = dr.solvers.ctf(images, **options)
    print(learnt.regularisation.message)
    cases = [("two levels, 1e-6 and 1e-4", (1e-6, 1e-4)), ("two levels, 1e-2 and 1", (1e-2, 1.0)),
             ("two levels, 1e-5 and 1", (1e-5, 1.0)), ("learnt", "auto")]
    for ax, (title, chosen) in zip(axes.flat[:4], cases, strict=True):
        found = dr.solvers.ctf(images, regularisation=chosen, **options).phase
        show(ax, aligned(found, truth), limits, title, f"error {error(found, truth):.3g}")
    curve = dr.solvers.l_curve(images, **options)
    dr.plot.l_curve(curve, ax=axes.flat[4])
    errors = [error(dr.solvers.ctf(images, regularisation=learnt.regularisation.scaled(f), **options).phase, truth)
              for f in curve.factors]
    ax = axes.flat[5]
    ax.loglog(curve.factors, errors, color="#333333", linewidth=1, marker="o", markersize=2)
    ax.axvline(1, color="#d55e00", linewidth=0.8)
    ax.set_title("error against truth", fontsize=8, loc="left")
    ax.set_xlabel("strength / learnt", fontsize=8)
    ax.set_ylabel("relative error", fontsize=8)
    ax.tick_params(labelsize=7)
    save(figure, "phase_regularisation.png", 115)


def methods():
    """A weak and a strong sample by every method."""
    figure, axes = plt.subplots(2, 6, figsize=(7.2, 2.75), layout="constrained")
    for row, peak in enumerate((0.35, 4.0)):
        truth, images = measured(peak, False)
        limits = (truth.min() * 1.25, -truth.min() * 0.25)
        show(axes[row, 0], truth, limits, f"truth, {-truth.min():.2g} rad")
        many = dict(distances=DISTANCES, **BEAM)
        contact = np.random.default_rng(9).poisson(np.exp(2 / RATIO * truth) * PHOTONS).astype("f4") / PHOTONS
        maps = {
            "Paganin, 1 distance": dr.solvers.paganin(images[0], distance=DISTANCES[0], delta_beta=RATIO, **BEAM),
            "TIE, contact and 1": dr.solvers.tie(np.stack([contact, images[0]]), distances=(0, DISTANCES[0]),
                                                 **BEAM).phase,
            "CTF, one material": dr.solvers.ctf(images, delta_beta=RATIO, **many).phase,
            "CTF, two unknowns": dr.solvers.ctf(images, **many).phase,
            "mixed, contact": dr.solvers.mixed(images, contact, **many).phase,
        }
        for ax, (title, found) in zip(axes[row, 1:], maps.items(), strict=True):
            show(ax, aligned(found, truth), limits, title, f"error {error(found, truth):.3g}")
    save(figure, "phase_methods.png")


def save(figure, name, dpi=130):
    """As few colours as keep a small file."""
    from PIL import Image

    figure.savefig(HERE / name, dpi=dpi)
    Image.open(HERE / name).convert("RGB").quantize(160, dither=Image.Dither.NONE).save(HERE / name, optimize=True)
    print(name, (HERE / name).stat().st_size // 1000, "kB")


if __name__ == "__main__":
    paddings()
    regularisations()
    methods()

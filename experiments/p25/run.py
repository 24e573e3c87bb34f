"""What do probe modes, sampling, positions and background contribute to a near-field scan? Judged on views never
fitted.

    python experiments/p25/run.py FOLDER [--output FOLDER] [--only default]

FOLDER holds p25_near_field.cxi. Prints the table of README.md and writes p25.png and one NeXus file a variant.
"""

import argparse
import time
import tomllib
from pathlib import Path

import numpy as np

import diffrecon as dr
from diffrecon import plot

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--only", action="append", help="a variant of config.toml; all of them by default")
    options = parser.parse_args()
    config = tomllib.loads((HERE / "config.toml").read_text())
    scan = dr.open_scan(options.folder / config["input"], focus_to_sample=config["focus_to_sample"])

    results = {}
    print("| solved for | R | deviance | CPU s |\n|---|---|---|---|")
    for name, settings in config["variants"].items():
        if options.only and name not in options.only:
            continue
        begun = time.process_time()
        result = dr.reconstruct(scan, settings=settings)
        seconds = time.process_time() - begun
        quality = result.quality
        print(
            f"| {name} | {quality['held_out_residual']:.4f} | {quality['held_out_deviance']:.2f} | {seconds:.0f} |",
            flush=True,
        )
        stem = name.replace(" ", "_").replace("'", "")
        dr.write(options.output / f"p25_{stem}.h5", result, scan)
        results[name] = result
    quality = next(iter(results.values())).quality
    print(f"| photon noise alone | {quality['noise_floor_residual']:.4f} | {quality['noise_floor_deviance']:.2f} | |")
    draw(results, options.output / "p25.png")


def draw(results: dict[str, dr.Result], path: Path) -> None:
    """The phase of every variant where it was seen well, on the same grey values."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(3.4 * len(results), 3.3), layout="constrained")
    for ax, (name, result) in zip(page.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        seen = np.argwhere(np.isfinite(result["phase"]))
        rows, columns = (slice(a, b + 1) for a, b in zip(seen.min(0), seen.max(0), strict=True))
        title = f"{name}:\nR = {result.quality['held_out_residual']:.3f}"
        plot.image(
            result["phase"][rows, columns],
            pixel_size=result.quantities["phase"].pixel_size,
            units="rad",
            title=title,
            limits=(-0.5, 0.4),
            ax=ax,
        )
    page.savefig(path, dpi=75)


if __name__ == "__main__":
    main()

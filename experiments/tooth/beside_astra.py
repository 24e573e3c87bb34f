"""Both detector rows of the tooth by filtered back-projection, beside ASTRA's.

    pip install astra-toolbox
    python experiments/tooth/beside_astra.py FOLDER [--output FOLDER]

FOLDER holds tooth.h5. ASTRA's FBP knows a rotation axis in the middle only: it gets the columns that lie evenly about
the axis, rounded to half a column. Writes beside_astra.png and prints the residuals.
"""

import argparse
from pathlib import Path

import astra
import jax.numpy as jnp
import numpy as np

import diffrecon as dr
from diffrecon import plot

HERE = Path(__file__).parent
BOX = slice(170, 470)  # of the slice that is shown


def by_astra(sinogram: np.ndarray, angles: np.ndarray, centre: float) -> np.ndarray:
    """Its FBP on the grid of the whole detector."""
    columns = sinogram.shape[1]
    cropped = sinogram[:, : round(2 * centre) + 1]
    geometry = astra.create_proj_geom("parallel", 1.0, cropped.shape[1], -angles)
    volume = astra.create_vol_geom(columns, columns)
    settings = astra.astra_dict("FBP")
    image, data = astra.data2d.create("-vol", volume), astra.data2d.create("-sino", geometry, cropped)
    projector = astra.create_projector("linear", geometry, volume)
    settings.update(ProjectorId=projector, ProjectionDataId=data, ReconstructionDataId=image)
    algorithm = astra.algorithm.create(settings)
    astra.algorithm.run(algorithm)
    found = astra.data2d.get(image)
    astra.algorithm.delete(algorithm)
    astra.data2d.delete([image, data])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    scan = dr.open_scan(options.folder / "tooth.h5")
    values, centre = scan.absorption(), scan.find_rotation_centre()
    columns = values.shape[2]
    A = dr.operators.ParallelProjector(scan.angles, (columns, columns), columns, centre=centre)
    relative = lambda x, b: float(jnp.linalg.norm(A(jnp.asarray(x)) - b) / np.linalg.norm(b))

    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 7.2), layout="constrained")
    for row in range(2):
        ours = np.asarray(dr.solvers.fbp(A, values[:, row]))
        theirs = by_astra(values[:, row], np.asarray(scan.angles), centre)
        # ASTRA's y grows upwards, and its sense of rotation is the other one.
        theirs = min((theirs, theirs[::-1]), key=lambda image: np.linalg.norm(image - ours))
        residuals = [relative(image, values[:, row]) for image in (ours, theirs)]
        print(
            f"row {row}: residual {residuals[0]:.4f}, ASTRA {residuals[1]:.4f}; "
            f"difference {np.linalg.norm(ours - theirs) / np.linalg.norm(ours):.3f} of the slice"
        )
        images = {"diffrecon": ours, "ASTRA": theirs, "difference": ours - theirs}
        for ax, (name, image) in zip(axes[row], images.items(), strict=True):
            plot.image(image[BOX, BOX], units="1/pixel", title=f"{name}, row {row}", ax=ax)
    figure.savefig(options.output / "beside_astra.png", dpi=100)


if __name__ == "__main__":
    main()

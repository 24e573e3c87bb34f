"""A cost, or data, of the user's own that cannot be minimised are refused in words."""

import jax.numpy as jnp
import make_files
import numpy as np
import optax
import pytest

import diffrecon as dr
from diffrecon.cli import main

IMAGE = jnp.ones((4, 4))
FRAMES = np.ones((3, 4, 4), np.float32)
RULE = optax.sgd(0.1)


def fit(cost, data=None, **options):
    return dr.minimise(cost, IMAGE, {"counts": FRAMES} if data is None else data, RULE, steps=2, **options)


def mean(image, batch):
    return jnp.mean((image - batch.counts) ** 2)


@pytest.mark.parametrize(
    "cost, said",
    [
        (lambda image, batch: (1 + 1j) * mean(image, batch), "complex"),
        (lambda image, batch: (image - batch.counts) ** 2, r"shape \(3, 4, 4\).*mean"),
        (lambda image, batch: dr.losses.gaussian(image, batch.counts), r"shape \(4, 4\), the data \(3, 4, 4\)"),
        (lambda image, batch: dr.losses.poisson(image[None] + 0 * batch.counts, jnp.ones(())), r"the data \(\)"),
        (lambda image, batch: None, "NoneType, not one number"),
        (lambda image, batch: jnp.sum(batch.views), "no gradient"),
    ],
)
def test_costs_that_are_no_real_number(cost, said):
    with pytest.raises(dr.InputError, match=said):
        fit(cost)


def test_data_that_cannot_be_fitted():
    broken = FRAMES.copy()
    broken[1, 2, 2] = np.nan
    with pytest.raises(dr.InputError, match="NaN or infinity: counts of view 1"):
        fit(mean, {"counts": broken})
    with pytest.raises(dr.InputError, match=r'ndarray: give them names.*data=\{"counts": frames\}'):
        fit(mean, FRAMES)
    with pytest.raises(dr.InputError, match="all 3 views"):
        fit(mean, held_out=[0, 1, 2])


def test_a_mistake_in_a_cost_file_is_told_with_its_line(tmp_path, capsys):
    make_files.dxchange(tmp_path / "in.h5")
    (tmp_path / "costs.py").write_text(
        "def cost(model, batch):\n    lines = model(batch.views)\n    return lines.men()\n"
    )
    sets = [
        "--set=solver.name=minimise",
        "--set=geometry.rotation_centre=7",
        f"--set=loss={tmp_path / 'costs.py'}:cost",
    ]
    assert main(["reconstruct", str(tmp_path / "in.h5"), "-o", str(tmp_path / "o.h5"), "-q", *sets]) == 2
    said = capsys.readouterr().err
    assert "loss.function (costs.py, line 3): AttributeError" in said and said.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["costs.py", "in.h5"]

"""Direct phase retrieval with the views split over devices: the maps of one device."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
import diffrecon as dr
from diffrecon import sharding, solvers

y, x = np.mgrid[:48, :48] - 24.0
fy, fx = np.meshgrid(np.fft.fftfreq(48, 5e-8), np.fft.fftfreq(48, 5e-8), indexing="ij")

def hologram(view, distance):
    phase = -0.5 * np.exp(-((x - view) ** 2 + y**2) / 72)
    wave = np.fft.fft2(np.exp((1j + 1 / 500) * phase))
    return np.abs(np.fft.ifft2(wave * np.exp(-1j * np.pi * 7.3e-11 * distance * (fx**2 + fy**2)))) ** 2

images = np.array([[hologram(view, distance) for distance in (0.004, 0.006)] for view in range(6)])
images = (images + 0.01 * np.random.default_rng(0).standard_normal(images.shape)).astype(np.float32)
split = sharding.shard_views(images, sharding.data_mesh())
assert len(split.sharding.device_set) == 3
beam, one = {"pixel_size": 5e-8, "wavelength": 7.3e-11}, {"delta_beta": 500.0}
both = {"distances": (0.004, 0.006), **beam}
for name, method in {
    "ctf": lambda x: solvers.ctf(x, **both, **one).phase,
    "ctf, two unknowns": lambda x: solvers.ctf(x, **both, outside="mirror").phase,
    "paganin": lambda x: solvers.paganin(x[:, 0], distance=0.004, **beam, **one),
    "mixed": lambda x: solvers.mixed(x, x[:, 0], **both, **one).phase,
}.items():
    found, expected = method(split), np.asarray(method(images))
    assert len(found.sharding.device_set) == 3, name
    # A rounding of the images alone changes what the mixed approach learns, and with it the phase, by 1e-4.
    np.testing.assert_allclose(found, expected, atol=5e-4 * np.abs(expected).max(), err_msg=name)
"""


@pytest.mark.slow
def test_three_devices_come_to_the_maps_of_one():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=3"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr

#!/usr/bin/env bash
# nxtomomill: a Data Exchange file that says no energy, pixel or distance comes out as an NXtomo that says all three.
#
# nxtomomill 2.1.7, nxtomo 3.1.1. Data Exchange asks for frames and angles only. `nxtomomill dxfile2nx` of such a file, valid
# and without any geometry, writes an energy of 1, in a unit spelled out as "kiloelectron_volt", pixels of 1 m and a
# distance of 1 m, each like a value that was measured. A reader that trusts the file gives lengths a million times too
# large, or wavelengths of 12 angstrom, and units that are not the symbols "keV" and "um" of the NeXus manual's examples.
#
# What follows for a reader of NXtomo: take long names of units, and say aloud that a pixel of a metre cannot be.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet "nxtomomill==2.1.7" "nxtomo==3.1.1"
cd "$folder"
env/bin/python - <<'PYTHON'
import h5py
import numpy as np

frames = np.random.default_rng(0).poisson(1000, (20, 4, 16)).astype(np.uint16)
with h5py.File("scan.h5", "w") as file:
    file["implements"] = "exchange"
    file["exchange/data"], file["exchange/data_white"] = frames[:12], frames[12:16]
    file["exchange/data_dark"] = frames[16:] // 100
    file["exchange/theta"] = np.linspace(0, 180, 12, endpoint=False)
    file["exchange/theta"].attrs["units"] = "deg"
PYTHON
env/bin/nxtomomill dxfile2nx scan.h5 scan.nx --data-copy >log 2>&1 || env/bin/nxtomomill dxfile2nx scan.h5 scan.nx >log 2>&1 || { cat log; exit 1; }
env/bin/python - <<'PYTHON'
import h5py

found = {}
with h5py.File("scan.nx") as file:
    def look(name, item):
        last = name.rsplit("/", 1)[-1]
        if isinstance(item, h5py.Dataset) and last in ("incident_energy", "energy", "x_pixel_size", "y_pixel_size", "distance"):
            found.setdefault(last, (float(item[()]), item.attrs.get("units", item.attrs.get("unit", ""))))
    file.visititems(look)
for name, (value, unit) in sorted(found.items()):
    print(f"{name}: {value:g} {unit}")
energy = found.get("incident_energy") or found["energy"]
assert energy == (1.0, "kiloelectron_volt"), energy
assert found["x_pixel_size"][0] == 1.0 and found["y_pixel_size"][0] == 1.0 and found["distance"][0] == 1.0
PYTHON

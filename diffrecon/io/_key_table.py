"""The names of what can be said about a file."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Key:
    """A name of `open_scan` and of `--set section.name`.

    `kind`: `"frames"`, `"array"`, `"number"` (in `unit`; may be an array), `"text"`, `"range"` or `"any"`. `says`: one
    line for the user; with `holes` some numbers of an array may be none.
    """

    section: str
    kind: str
    unit: str = ""
    says: str = ""
    holes: bool = False

    def documented(self, name: str) -> str:
        """Say what it is, its unit and its choices."""
        choices = f" (one of {', '.join(CHOICES[name])})" if name in CHOICES else ""
        return f"{self.says}{f' [{self.unit}]' if self.unit else ''}{choices}"


KEYS: dict[str, Key] = {
    "counts": Key("data", "frames", says="frames (view, row, column)"),
    "flats": Key("data", "array", says="frames of the empty beam"),
    "darks": Key("data", "array", says="frames without beam"),
    "mask": Key("data", "array", says="nonzero where a pixel was measured"),
    "bad_pixels": Key("data", "array", says="nonzero where a pixel is bad"),
    "efficiency": Key(
        "data",
        "array",
        says="relative efficiency of the pixels (cdtools: qe_mask); predicted counts are multiplied by it",
    ),
    "angles": Key(
        "data",
        "array",
        "rad",
        says="rotation angles; also a range over all views: 0..180 deg, 0..<360 deg without the last",
    ),
    "angle_unit": Key("data", "text", says="deg or rad"),
    "positions": Key("data", "array", "m", says="displacement of the patch over the object (view, 2), row and column"),
    "positions_y": Key("data", "array", "m", says="the same from two motors: the rows"),
    "positions_x": Key("data", "array", "m", says="the same from two motors: the columns"),
    "positions_unit": Key("data", "text", says="m, um, ... or pixel"),
    "positions_of": Key(
        "data", "text", says="sample where it is the sample's motion that the file holds: the sign is turned"
    ),
    "probe": Key("data", "array", says="first guess of the probe, complex, any scale"),
    "weights": Key("data", "array", says="relative confidence of every datum, 0 where it is bad"),
    "transmission": Key("data", "array", says="transmitted fraction of the beam, for the methods that use it"),
    "flux": Key(
        "data", "number", says="mean counts a pixel of the empty beam; k-edge: one number, or one for each energy"
    ),
    "saturation": Key(
        "data",
        "number",
        says="counts from which on a pixel only says at least so many, such as 65535 for a detector of 16 bits",
    ),
    "flat_views": Key("data", "array", says="number of views taken before each flat: 0 before the first view"),
    "dark_views": Key("data", "array", says="number of views taken before each dark: 0 before the first view"),
    "layout": Key("data", "text", says="sinogram is (row, view, column), or (view, column) of a single row"),
    "kind": Key("data", "text", says="what the frames are (tomography, laminography)"),
    "flip": Key("data", "text", says="mirror frames, flats, darks and masks as they are read, before all else"),
    "views": Key("data", "range", says="which views: 0:100, ::2, 0:10,13:64, a number, a list"),
    "rows": Key("data", "range", says="range of detector rows, 100:200"),
    "columns": Key("data", "range", says="range of detector columns, 100:200"),
    "region": Key("data", "range", says="both at once: [first row, last + 1, first column, last + 1]"),
    "binning": Key("data", "range", says="pixels summed into one along both axes"),
    "entry": Key("data", "text", says="which entry of the file"),
    "image_key": Key("data", "text", says="which dataset holds the image key"),
    "dc": Key("data", "text", says="where the zero frequency of far-field frames is; seen from the frames otherwise"),
    "materials": Key("data", "any", says="names, formulas and densities, for the methods that use them"),
    "shifts": Key("data", "array", says="displacement of every frame, for the methods that use it"),
    "times": Key("data", "array", says="when every frame was taken"),
    "reference": Key("data", "array", says="frames without the sample, for differential phase"),
    "steps": Key("data", "array", says="where grating, mask or crystal stood in every frame"),
    "reference_steps": Key("data", "array", says="where it stood in every frame without the sample"),
    "monitor": Key("data", "array", says="light of every frame, or of every scan point of a map"),
    "moments_y": Key(
        "data",
        "array",
        says="mean angle of the transmitted beam at every scan point (angle, row, point), across the rows [rad]",
    ),
    "moments_x": Key("data", "array", says="the same across the columns [rad]"),
    "quadrants": Key("data", "array", says="counts of a quadrant detector (4, angle, row, point)"),
    "elements": Key(
        "data", "any", says="counts of the fluorescence lines: datasets by name of the element, or their group"
    ),
    "spectra": Key("data", "any", says="fluorescence spectra of every scan point"),
    "detector_axis": Key("data", "any", says="which axis of the spectra counts detector elements"),
    "channel_energy": Key("data", "array", "eV", says="energies of the channels of the spectra"),
    "fit_configuration": Key("data", "text", says="configuration file of PyMca for the fit of the spectra"),
    "area_errors": Key("data", "any", says="standard errors of the line counts, by name or group"),
    "area_backgrounds": Key("data", "any", says="background below the line counts, by name or group"),
    "live_time": Key("data", "number", "s", says="live time of a scan point", holes=True),
    "real_time": Key("data", "number", "s", says="real time of a scan point", holes=True),
    "dwell": Key("data", "number", "s", says="dwell time of a scan point", holes=True),
    "energy": Key("geometry", "energy", "eV", says="photon energy"),
    "wavelength": Key("geometry", "number", "m", says="wavelength, in place of the energy"),
    "focus_to_sample": Key("geometry", "number", "m", says="distance; one number, or one for each view"),
    "focus_to_detector": Key("geometry", "number", "m", says="distance; one number, or one for each view"),
    "sample_to_detector": Key("geometry", "number", "m", says="distance; one number, or one for each view"),
    "detector_pixel": Key("geometry", "number", "m", says="pixel of the detector"),
    "pixel_size": Key("geometry", "number", "m", says="pixel in the sample, where it is known directly"),
    "rotation_centre": Key("geometry", "number", says="detector column of the rotation axis, counted from 0"),
    "tilt": Key("geometry", "number", "rad", says="tilt of the rotation axis (laminography)"),
    "two_theta": Key("geometry", "number", "rad", says="scattering angle of tensor tomography"),
    "period": Key("geometry", "number", "m", says="period of the pattern of a grating or membrane"),
    "detector_blur": Key("geometry", "number", says="point spread of the detector [pixel]"),
    "divergence": Key("geometry", "number", "rad", says="half the opening of the cone of a scanning microscope"),
    "beam": Key("geometry", "text", says="shape of the beam, for near-field ptychography"),
    "poni": Key("geometry", "text", says="geometry file of pyFAI"),
}

CHOICES = {
    "dc": ("centre", "corner"),
    "positions_of": ("patch", "sample"),
    "beam": ("parallel", "cone"),
    "layout": ("projections", "sinogram"),
    "flip": ("none", "left-right", "up-down", "both"),
    "kind": ("counts", "transmission", "line-integrals"),
}

MOTORS = ("positions_y", "positions_x")
FRAMES = ("counts", "flats", "darks")

"""The names of what can be said about a file."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Key:
    """A name of `open_scan` and of `--set section.name`.

    `kind`: `"frames"`, `"array"`, `"number"` (in `unit`; may be an array), `"text"`, `"range"` or `"any"`.
    """

    section: str
    kind: str
    unit: str = ""


KEYS: dict[str, Key] = {
    "counts": Key("data", "frames"),
    "flats": Key("data", "array"),
    "darks": Key("data", "array"),
    "mask": Key("data", "array"),
    "bad_pixels": Key("data", "array"),
    "efficiency": Key("data", "array"),
    "angles": Key("data", "array", "rad"),
    "angle_unit": Key("data", "text"),
    "positions": Key("data", "array", "m"),
    "positions_y": Key("data", "array", "m"),
    "positions_x": Key("data", "array", "m"),
    "positions_unit": Key("data", "text"),
    "positions_of": Key("data", "text"),
    "probe": Key("data", "array"),
    "weights": Key("data", "array"),
    "transmission": Key("data", "array"),
    "flux": Key("data", "number"),
    "saturation": Key("data", "number"),
    "flat_views": Key("data", "array"),
    "dark_views": Key("data", "array"),
    "layout": Key("data", "text"),
    "kind": Key("data", "text"),
    "views": Key("data", "range"),
    "rows": Key("data", "range"),
    "columns": Key("data", "range"),
    "region": Key("data", "range"),
    "binning": Key("data", "range"),
    "entry": Key("data", "text"),
    "image_key": Key("data", "text"),
    "dc": Key("data", "text"),
    "materials": Key("data", "any"),
    "shifts": Key("data", "array"),
    "times": Key("data", "array"),
    "reference": Key("data", "array"),
    "steps": Key("data", "array"),
    "reference_steps": Key("data", "array"),
    "monitor": Key("data", "array"),
    "moments_y": Key("data", "array"),
    "moments_x": Key("data", "array"),
    "quadrants": Key("data", "array"),
    "elements": Key("data", "any"),
    "spectra": Key("data", "any"),
    "detector_axis": Key("data", "any"),
    "channel_energy": Key("data", "array", "eV"),
    "fit_configuration": Key("data", "text"),
    "area_errors": Key("data", "any"),
    "area_backgrounds": Key("data", "any"),
    "live_time": Key("data", "number", "s"),
    "real_time": Key("data", "number", "s"),
    "dwell": Key("data", "number", "s"),
    "energy": Key("geometry", "energy", "eV"),
    "wavelength": Key("geometry", "number", "m"),
    "focus_to_sample": Key("geometry", "number", "m"),
    "focus_to_detector": Key("geometry", "number", "m"),
    "sample_to_detector": Key("geometry", "number", "m"),
    "detector_pixel": Key("geometry", "number", "m"),
    "pixel_size": Key("geometry", "number", "m"),
    "rotation_centre": Key("geometry", "number"),
    "tilt": Key("geometry", "number", "rad"),
    "two_theta": Key("geometry", "number", "rad"),
    "period": Key("geometry", "number", "m"),
    "detector_blur": Key("geometry", "number"),
    "divergence": Key("geometry", "number", "rad"),
    "beam": Key("geometry", "text"),
    "poni": Key("geometry", "text"),
}

CHOICES = {
    "dc": ("centre", "corner"),
    "positions_of": ("patch", "sample"),
    "beam": ("parallel", "cone"),
    "layout": ("projections", "sinogram"),
    "kind": ("counts", "transmission", "line-integrals"),
}

MOTORS = ("positions_y", "positions_x")
FRAMES = ("counts", "flats", "darks")

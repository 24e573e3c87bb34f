"""X-ray imaging experiments as differentiable forward models in JAX, and solvers that invert them.

```python
import diffrecon as dr

scan = dr.open_scan("scan.cxi", focus_to_sample="3.65 mm")
result = dr.reconstruct(scan)
dr.write("object.h5", result, scan)
```

Everything public is here or one level down: `operators`, `models`, `losses`, `penalties`, `constraints`, `priors`,
`solvers`, `recipes`, `prepare`, `quality`, `uncertainty`, `plot`, `simulate`, `physics`, `geometry`, `sharding`.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Submodules and names are imported when they are first used: `diffrecon --help` must not wait for jax.
_MODULES = (
    "constraints",
    "errors",
    "geometry",
    "io",
    "losses",
    "modality",
    "models",
    "motion",
    "operators",
    "penalties",
    "physics",
    "planning",
    "plot",
    "prepare",
    "priors",
    "quality",
    "recipes",
    "regimes",
    "settings",
    "sharding",
    "simulate",
    "solvers",
    "stream",
    "uncertainty",
)
_NAMES = {
    "Batch": "._model",
    "Model": "._model",
    "Console": "._console",
    "ConeBeam": ".geometry",
    "FarField": ".geometry",
    "ParallelBeam": ".geometry",
    "InputError": ".errors",
    "MissingMetadata": ".errors",
    "MissingPackage": ".errors",
    "Motion": ".motion",
    "Modality": ".modality",
    "Problem": ".modality",
    "Stage": ".modality",
    "descent": ".modality",
    "register": ".modality",
    "Quantity": "._result",
    "Result": "._result",
    "Scan": ".scan",
    "Solution": ".solvers",
    "minimise": ".solvers",
    "open_scan": ".io",
    "read_result": ".io",
    "write": ".io",
    "reconstruct": ".recipes",
}
__all__ = sorted([*_MODULES, *_NAMES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from . import constraints as constraints
    from . import errors as errors
    from . import geometry as geometry
    from . import io as io
    from . import losses as losses
    from . import modality as modality
    from . import models as models
    from . import motion as motion
    from . import operators as operators
    from . import penalties as penalties
    from . import physics as physics
    from . import planning as planning
    from . import plot as plot
    from . import prepare as prepare
    from . import priors as priors
    from . import quality as quality
    from . import recipes as recipes
    from . import regimes as regimes
    from . import settings as settings
    from . import sharding as sharding
    from . import simulate as simulate
    from . import solvers as solvers
    from . import stream as stream
    from . import uncertainty as uncertainty
    from ._console import Console as Console
    from ._model import Batch as Batch
    from ._model import Model as Model
    from ._result import Quantity as Quantity
    from ._result import Result as Result
    from .errors import InputError as InputError
    from .errors import MissingMetadata as MissingMetadata
    from .errors import MissingPackage as MissingPackage
    from .geometry import ConeBeam as ConeBeam
    from .geometry import FarField as FarField
    from .geometry import ParallelBeam as ParallelBeam
    from .io import open_scan as open_scan
    from .io import read_result as read_result
    from .io import write as write
    from .modality import Modality as Modality
    from .modality import Problem as Problem
    from .modality import Stage as Stage
    from .modality import descent as descent
    from .modality import register as register
    from .motion import Motion as Motion
    from .recipes import reconstruct as reconstruct
    from .scan import Scan as Scan
    from .solvers import Solution as Solution
    from .solvers import minimise as minimise


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name], __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'diffrecon' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

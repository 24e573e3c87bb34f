"""Methods: what `dr.reconstruct(scan, method, ...)` and the command line do for a measurement.

One file a method: its settings, how its problem starts, its stages, what is written. One driver (`_run`) runs them all.
Recipes put models, solvers and preparation together and touch no file.
"""

from typing import TYPE_CHECKING

from .._lazy import names_of
from .._look import REGISTERED
from .._methods import BUILT_IN

if TYPE_CHECKING:
    from .._console import Console as Console
    from .._look import names as methods
    from .._methods import BUILT_IN as BUILT_IN
    from ..modality import find as find
    from ..modality import recognise as recognise
    from ..modality import register as register
    from ._calls import check_settings as check_settings
    from ._calls import defaults as defaults
    from ._calls import preview as preview
    from ._calls import reconstruct as reconstruct
    from ._calls import reconstruct_slabs as reconstruct_slabs
    from ._calls import settings_text as settings_text
    from ._calls import wants_slabs as wants_slabs
    from ._run import run as run
    from .looks import look_of as look_of
else:
    __getattr__, __dir__, __all__ = names_of(__name__)

# The package's own methods come through the door that is open to everybody; each is imported when it is first used.
for _name, _place in BUILT_IN.items():
    REGISTERED.setdefault(_name, f"{__name__}.{_place}")

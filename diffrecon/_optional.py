"""Optional packages are imported when they are first needed, with an error that names the install command."""

import importlib
from typing import Any

from .errors import MissingPackage


def require(module: str, extra: str) -> Any:
    """Import an optional module or say how to install it.

    **Arguments:** `module` is what to import (`"matplotlib.pyplot"`); `extra` is the extra of this package that brings
    it.

    **Raises:** `MissingPackage` with the install command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingPackage(
            f'this needs the package {package}, which is not installed: pip install "diffrecon[{extra}]"'
        ) from error

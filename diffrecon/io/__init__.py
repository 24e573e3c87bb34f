"""Files in and out: `open_scan(path) -> Scan`, `write(path, result)`, `read_result(path) -> Result`."""

from typing import TYPE_CHECKING

from .._lazy import names_of

if TYPE_CHECKING:
    from ._disk import atomically as atomically
    from ._disk import edit_hdf5 as edit_hdf5
    from ._disk import new_hdf5 as new_hdf5
    from ._earlier import refuse_other_result as refuse_other_result
    from ._guess import neighbour_step as neighbour_step
    from ._key_table import KEYS as KEYS
    from ._lock import OutputLock as OutputLock
    from ._toml import dumps as dumps
    from ._toml import value as toml_value
    from .keys import collect as collect
    from .open import open_scan as open_scan
    from .open import read as read
    from .readers import Reader as Reader
    from .readers import register_reader as register_reader
    from .results import check_suffix as check_suffix
    from .results import process as process
    from .results import read_result as read_result
    from .results import write as write
    from .source import Source as Source
    from .writers.cxi import write_cxi as write_cxi
    from .writers.scan import write_scan as write_scan
    from .writers.volume import VolumeWriter as VolumeWriter
    from .writers.volume import check_output as check_output
    from .writers.volume import open_volume as open_volume
else:
    __getattr__, __dir__, __all__ = names_of(__name__)

"""Files in and out: `open_scan(path) -> Scan`, `write(path, result)`, `read_result(path) -> Result`."""

from ._cxi_out import write_cxi as write_cxi
from ._disk import atomically as atomically
from ._native import write_scan as write_scan
from ._nexus import process as process
from ._nexus import read_result as read_result
from ._nexus import write as write
from ._open import open_scan as open_scan
from ._toml import dumps as dumps
from ._toml import value as toml_value
from ._volume import VolumeWriter as VolumeWriter
from ._volume import check_output as check_output
from ._volume import open_volume as open_volume

"""Files in and out: `open_scan(path) -> Scan`, `write(path, result)`, `read_result(path) -> Result`."""

from ._open import open_scan as open_scan

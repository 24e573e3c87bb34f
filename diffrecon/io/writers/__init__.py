"""Files out: results and scans, one module a format."""

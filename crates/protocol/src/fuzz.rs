//! What the fuzz targets and their bounded runs check.

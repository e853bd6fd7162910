//! Spool files.

//! Legacy: dls.

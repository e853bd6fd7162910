//! Neo: dls.

//! Neo: frame.

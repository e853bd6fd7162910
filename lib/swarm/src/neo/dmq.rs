//! Neo: dmq.

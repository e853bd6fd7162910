//! Tests of the overflow.

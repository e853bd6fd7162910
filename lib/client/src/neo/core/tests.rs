//! Tests of the sans-I/O half of a connection.

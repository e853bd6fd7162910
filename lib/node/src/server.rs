//! Accepts connections of both protocols and drives the engine.

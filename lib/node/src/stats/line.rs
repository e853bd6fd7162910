//! The line of `stats.log` (protocol §4.3): `YYYY-MM-DD HH:MM:SS,mmm key:value key:value ...`.

use std::fmt::Write;

/// A value of `stats.log`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Written plain.
    Int(u64),
    /// Written with two decimals; a mean of nothing is `-nan`, as published.
    Float(f64),
}

/// Named numbers in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(Vec<(String, Number)>);

impl Fields {
    /// Adds `key:value`.
    pub fn int(&mut self, key: impl Into<String>, value: u64) {
        self.0.push((key.into(), Number::Int(value)));
    }

    /// Adds `key:value` with two decimals.
    pub fn float(&mut self, key: impl Into<String>, value: f64) {
        self.0.push((key.into(), Number::Float(value)));
    }

    /// Adds `category/instance/field:value`.
    pub fn of(&mut self, category: &str, instance: &str, field: &str, value: u64) {
        self.int(format!("{category}/{instance}/{field}"), value);
    }

    /// What was added.
    #[must_use]
    pub fn entries(&self) -> &[(String, Number)] {
        &self.0
    }

    /// Adds what `other` has.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Appends ` key:value` for each field to `out`.
    pub fn write(&self, out: &mut String) {
        for (key, number) in &self.0 {
            // Writing to a string cannot fail.
            let _ = match number {
                Number::Int(value) => write!(out, " {key}:{value}"),
                Number::Float(value) if value.is_nan() => write!(out, " {key}:-nan"),
                Number::Float(value) => write!(out, " {key}:{value:.2}"),
            };
        }
    }
}

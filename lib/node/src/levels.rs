//! From where on a figure is a problem.

use overstory_model::State;

use crate::config::{ConfigError, Section};

/// Three levels of a figure: minor, major, critical.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels {
    at: [f64; 3],
    rises: bool,
}

impl Levels {
    /// It is a problem when it is high; the levels ascend.
    #[must_use]
    pub const fn rising(at: [f64; 3]) -> Self {
        Self { at, rises: true }
    }

    /// It is a problem when it is low; the levels descend.
    #[must_use]
    pub const fn falling(at: [f64; 3]) -> Self {
        Self { at, rises: false }
    }

    /// These levels as `NAME_warning`, `NAME_major` and `NAME_critical` of a section say, each up to `most`; those that
    /// are not there stay.
    ///
    /// # Errors
    /// A value is none, or the levels are not in order.
    pub fn read(self, section: &Section<'_>, name: &str, most: f64) -> Result<Self, ConfigError> {
        let [minor, major, critical] = self.at;
        let level = |level, default| section.number(&format!("{name}_{level}"), default, 0.0..=most);
        let at = [level("warning", minor)?, level("major", major)?, level("critical", critical)?];
        let (sorted, allowed) = if self.rises {
            (at.is_sorted(), "at most the level above it")
        } else {
            (at.is_sorted_by(|a, b| a >= b), "at least the level below it")
        };
        if sorted { Ok(Self { at, ..self }) } else { Err(section.wrong(&format!("{name}_warning"), allowed)) }
    }

    /// The worst level that `value` has reached.
    #[must_use]
    pub fn reached(&self, value: f64) -> Option<State> {
        let is_reached = |level: f64| if self.rises { value >= level } else { value <= level };
        let states = [State::Minor, State::Major, State::Critical];
        states.into_iter().zip(self.at).rev().find(|(_, level)| is_reached(*level)).map(|(state, _)| state)
    }

    /// Where minor begins.
    #[must_use]
    pub const fn minor(&self) -> f64 {
        self.at[0]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn read(default: Levels, text: &str) -> Result<Levels, ConfigError> {
        let config = Config::parse(Path::new("etc/config.ini"), &format!("[Report]\n{text}"), Vec::new()).unwrap();
        default.read(&config.section("Report"), "x", 100.0)
    }

    #[test]
    fn the_worst_level_counts() {
        let (high, low) = (Levels::rising([80.0, 90.0, 95.0]), Levels::falling([20.0, 10.0, 5.0]));
        for (value, state) in [(79.9, None), (80.0, Some(State::Minor)), (100.0, Some(State::Critical))] {
            assert_eq!((high.reached(value), low.reached(100.0 - value)), (state, state));
        }
        assert_eq!(low.reached(7.0), Some(State::Major));
        assert!((high.minor() - 80.0).abs() < f64::EPSILON);
    }

    #[test]
    fn levels_are_read_and_have_to_be_in_order() {
        let (high, low) = (Levels::rising([80.0, 90.0, 95.0]), Levels::falling([20.0, 10.0, 5.0]));
        assert_eq!(read(high, "").unwrap(), high);
        assert_eq!(read(low, "x_critical = 1\n").unwrap(), Levels::falling([20.0, 10.0, 1.0]));
        for (levels, text, named) in [
            (high, "x_warning = 96\n", "x_warning = 96: expected at most the level above it"),
            (low, "x_critical = 15\n", "at least the level below it"),
            (low, "x_major = 101\n", "from 0 to 100"),
        ] {
            let error = read(levels, text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}

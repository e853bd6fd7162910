//! How bad a thing is (state) and what its alarm is doing (status), with their published numbers.

use serde::{Deserialize, Serialize};

/// The severity of an entity, 0 to 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum State {
    /// 0: nothing is wrong.
    #[default]
    Ok,
    /// 1: worth a look.
    Minor,
    /// 2: needs work.
    Major,
    /// 3: needs work now.
    Critical,
}

/// What the alarm of an entity is doing, 0 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Status {
    /// 0: the entity is well.
    #[default]
    Off,
    /// 1: the entity is not well.
    Ongoing,
    /// 2: the entity was unwell so briefly that it is not shown.
    Stealthy,
    /// 3: the entity goes back and forth.
    Flapping,
    /// 4: an operator cancelled the alarm.
    Cancelled,
    /// 5: the entity has fallen silent.
    NoEvents,
}

/// A number that is no state or no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{number} is not one of 0 to {highest}")]
pub struct OutOfRange {
    number: u8,
    highest: u8,
}

impl State {
    /// The word that operators use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }
}

impl Status {
    /// The word that operators use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Ongoing => "ongoing",
            Self::Stealthy => "stealthy",
            Self::Flapping => "flapping",
            Self::Cancelled => "cancelled",
            Self::NoEvents => "noevents",
        }
    }
}

impl From<State> for u8 {
    fn from(state: State) -> Self {
        state as Self
    }
}

impl From<Status> for u8 {
    fn from(status: Status) -> Self {
        status as Self
    }
}

impl TryFrom<u8> for State {
    type Error = OutOfRange;

    fn try_from(number: u8) -> Result<Self, OutOfRange> {
        [Self::Ok, Self::Minor, Self::Major, Self::Critical]
            .into_iter()
            .find(|state| *state as u8 == number)
            .ok_or(OutOfRange { number, highest: 3 })
    }
}

impl TryFrom<u8> for Status {
    type Error = OutOfRange;

    fn try_from(number: u8) -> Result<Self, OutOfRange> {
        [Self::Off, Self::Ongoing, Self::Stealthy, Self::Flapping, Self::Cancelled, Self::NoEvents]
            .into_iter()
            .find(|status| *status as u8 == number)
            .ok_or(OutOfRange { number, highest: 5 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn numbers_go_there_and_back() {
        for number in 0..=3 {
            assert_eq!(u8::from(State::try_from(number).unwrap()), number);
        }
        for number in 0..=5 {
            assert_eq!(u8::from(Status::try_from(number).unwrap()), number);
        }
        assert_eq!(State::try_from(4).unwrap_err().to_string(), "4 is not one of 0 to 3");
        assert!(serde_json::from_str::<Status>("6").is_err());
    }
}

//! When a reading becomes an alarm: levels, hysteresis, and how many ticks in a row it takes.

use overstory_model::State;

/// From which value on a reading is minor, major, critical; `None` switches a level off.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Levels {
    /// Minor from here on.
    pub minor: Option<f64>,
    /// Major from here on.
    pub major: Option<f64>,
    /// Critical from here on.
    pub critical: Option<f64>,
}

/// How stubborn a watch is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// A level is left only when the reading is this part (0 to 1) of the level's value below it.
    pub hysteresis: f64,
    /// So many readings in a row must agree before the state changes.
    pub consecutive: u32,
    /// The state is said again after so many seconds.
    pub refresh_s: i64,
}

/// What has to be said about a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) state: State,
    /// The value of the level that the state stands for, if it is not OK.
    pub(crate) level: Option<f64>,
    /// False when it only repeats what was said before.
    pub(crate) changed: bool,
}

/// The state of one thing that is watched.
///
/// It begins unknown: the first state is said once `consecutive` readings were seen, so that a restart of the connector
/// neither raises an alarm over one reading nor clears one that still stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    state: Option<State>,
    /// The state that the readings have been asking for, and for how many of them.
    pending: Option<(State, u32)>,
    /// When it was last said, in seconds of the monotonic clock.
    said_at: i64,
}

impl Levels {
    fn of(&self, state: State) -> Option<f64> {
        match state {
            State::Ok => None,
            State::Minor => self.minor,
            State::Major => self.major,
            State::Critical => self.critical,
        }
    }

    /// Whether any level is switched on.
    #[must_use]
    pub fn any(&self) -> bool {
        self.minor.or(self.major).or(self.critical).is_some()
    }

    /// The state that `value` asks for when the state is `current`.
    fn judge(&self, value: f64, current: State, hysteresis: f64) -> State {
        let holds = |state: &State| {
            self.of(*state).is_some_and(|level| {
                let level = if *state <= current { level * (1.0 - hysteresis) } else { level };
                value >= level
            })
        };
        [State::Critical, State::Major, State::Minor].into_iter().find(holds).unwrap_or(State::Ok)
    }
}

impl Watch {
    /// Takes the next reading, at `now_s` of a clock that never jumps; says what there is to say.
    pub(crate) fn take(&mut self, levels: &Levels, rule: &Rule, value: f64, now_s: i64) -> Option<Verdict> {
        let wanted = levels.judge(value, self.state.unwrap_or_default(), rule.hysteresis);
        if self.state == Some(wanted) {
            self.pending = None;
            return (now_s - self.said_at >= rule.refresh_s).then(|| self.say(levels, now_s, false));
        }
        let (pending, seen) = match self.pending {
            // Of readings that ask for different states, the one nearest to the present state counts.
            Some((pending, seen)) if self.same_direction(pending, wanted) => (self.nearer(pending, wanted), seen + 1),
            _ => (wanted, 1),
        };
        if seen < rule.consecutive {
            self.pending = Some((pending, seen));
            return None;
        }
        self.state = Some(pending);
        self.pending = None;
        Some(self.say(levels, now_s, true))
    }

    /// Ends the watch of a thing that is gone: true when its alarm has to be cleared.
    pub(crate) fn is_raised(&self) -> bool {
        self.state.is_some_and(|state| state != State::Ok)
    }

    fn same_direction(&self, a: State, b: State) -> bool {
        self.state.is_none_or(|now| (a > now) == (b > now))
    }

    fn nearer(&self, a: State, b: State) -> State {
        if self.state.is_none_or(|now| a > now) { a.min(b) } else { a.max(b) }
    }

    fn say(&mut self, levels: &Levels, now_s: i64, changed: bool) -> Verdict {
        self.said_at = now_s;
        let state = self.state.unwrap_or_default();
        Verdict { state, level: levels.of(state), changed }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use proptest::prelude::*;

    use super::*;

    const LEVELS: Levels = Levels { minor: Some(80.0), major: Some(90.0), critical: Some(98.0) };
    const RULE: Rule = Rule { hysteresis: 0.05, consecutive: 3, refresh_s: 300 };

    /// The states said for readings that come every 10 s: one character per reading, `.` for nothing.
    fn said(rule: &Rule, values: &[f64]) -> String {
        let mut watch = Watch::default();
        let step = |(tick, value): (usize, &f64)| match watch.take(&LEVELS, rule, *value, tick as i64 * 10) {
            None => '.',
            Some(verdict) if verdict.changed => ['o', 'm', 'M', 'C'][verdict.state as usize],
            Some(_) => 'r',
        };
        values.iter().enumerate().map(step).collect()
    }

    #[test]
    fn a_state_changes_after_enough_readings_in_a_row() {
        assert_eq!(said(&RULE, &[10.0, 10.0, 10.0, 85.0, 85.0, 85.0, 85.0]), "..o..m.");
        assert_eq!(said(&RULE, &[10.0, 10.0, 10.0, 85.0, 85.0, 10.0, 85.0]), "..o....", "a gap begins anew");
        assert_eq!(said(&Rule { consecutive: 1, ..RULE }, &[85.0, 95.0, 99.0, 1.0]), "mMCo");
    }

    #[test]
    fn of_different_readings_the_mildest_change_counts() {
        assert_eq!(said(&RULE, &[10.0, 10.0, 10.0, 99.0, 91.0, 99.0, 99.0, 99.0, 99.0]), "..o..M..C");
        assert_eq!(said(&RULE, &[99.0, 99.0, 99.0, 10.0, 82.0, 10.0]), "..C..m");
    }

    #[test]
    fn a_level_is_left_only_well_below_it() {
        let one = Rule { consecutive: 1, ..RULE };
        assert_eq!(said(&one, &[80.0, 79.0, 76.1, 75.9, 79.9, 80.0]), "m..o.m");
    }

    #[test]
    fn a_restart_neither_raises_nor_clears_by_one_reading() {
        assert_eq!(said(&RULE, &[99.0, 10.0, 99.0]), "..o", "not three in a row");
        assert_eq!(said(&RULE, &[99.0, 99.0, 99.0]), "..C");
    }

    #[test]
    fn the_state_is_said_again_after_a_while() {
        let values = vec![10.0; 64];
        assert_eq!(said(&RULE, &values).replace('.', "").len(), 3);
        let mut watch = Watch::default();
        let one = Rule { consecutive: 1, ..RULE };
        let first = watch.take(&LEVELS, &one, 95.0, 0).unwrap();
        assert_eq!(first, Verdict { state: State::Major, level: Some(90.0), changed: true });
        assert_eq!(watch.take(&LEVELS, &one, 95.0, 299), None);
        assert_eq!(watch.take(&LEVELS, &one, 95.0, 300), Some(Verdict { changed: false, ..first }));
        assert!(watch.is_raised());
    }

    #[test]
    fn a_level_that_is_off_is_skipped() {
        let levels = Levels { minor: None, major: Some(90.0), critical: None };
        let mut watch = Watch::default();
        let one = Rule { consecutive: 1, ..RULE };
        assert_eq!(watch.take(&levels, &one, 89.0, 0).unwrap().state, State::Ok);
        assert_eq!(watch.take(&levels, &one, 100.0, 1).unwrap().state, State::Major);
        assert!(!Levels::default().any());
    }

    proptest! {
        #[test]
        fn between_a_level_and_its_hysteresis_nothing_changes(values in proptest::collection::vec(76.1f64..79.9, 1..50)) {
            let (mut low, mut high) = (Watch::default(), Watch::default());
            let one = Rule { consecutive: 1, refresh_s: i64::MAX, ..RULE };
            low.take(&LEVELS, &one, 0.0, 0);
            high.take(&LEVELS, &one, 85.0, 0);
            for value in values {
                prop_assert_eq!(low.take(&LEVELS, &one, value, 1), None);
                prop_assert_eq!(high.take(&LEVELS, &one, value, 1), None);
            }
        }
    }
}

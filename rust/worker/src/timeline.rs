//! When times were applied, for saying how old something is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dataflow_protocol::ids::Time;

/// Entries kept. Beyond, older ones are thinned out: what is far behind needn't be known to the microsecond.
const ENTRIES: usize = 1 << 12;

/// The latest times applied and the moments at which they were, the older the sparser.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    entries: VecDeque<(Time, Instant)>,
}

impl Timeline {
    /// Takes note of a time, greater than all before it.
    pub(crate) fn applied(&mut self, time: Time, now: Instant) {
        if self.entries.len() == ENTRIES {
            let mut index = 0;
            self.entries.retain(|_| {
                index += 1;
                index > ENTRIES / 2 || index % 2 == 1
            });
        }
        self.entries.push_back((time, now));
    }

    /// How long ago `time` was applied; a little more where it has been thinned out, zero if it wasn't yet.
    pub(crate) fn age(&self, time: Time, now: Instant) -> Duration {
        let after = self.entries.partition_point(|(other, _)| *other <= time);
        if after == self.entries.len() && self.entries.back().is_none_or(|(last, _)| *last < time) {
            return Duration::ZERO;
        }
        let entry = self.entries.get(after.saturating_sub(1));
        entry.map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at))
    }

    /// How long ago the first time after `finished` was applied, which is how far behind whoever has finished no
    /// more than that is.
    pub(crate) fn lag(&self, finished: Time, now: Instant) -> Duration {
        let next = self.entries.partition_point(|(time, _)| *time <= finished);
        self.entries.get(next).map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_lags_are_those_of_the_times_asked_for() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut timeline = Timeline::default();
        assert_eq!(timeline.lag(0, at(5)), Duration::ZERO);
        for time in [2, 5, 9] {
            timeline.applied(time, at(time));
        }
        assert_eq!(timeline.age(5, at(20)), Duration::from_millis(15));
        assert_eq!(timeline.age(9, at(20)), Duration::from_millis(11));
        assert_eq!(timeline.age(10, at(20)), Duration::ZERO, "not applied yet");
        assert_eq!(timeline.lag(2, at(20)), Duration::from_millis(15));
        assert_eq!(timeline.lag(9, at(20)), Duration::ZERO, "nothing is behind");
    }

    #[test]
    fn a_long_history_is_bounded_and_its_recent_part_exact() {
        let start = Instant::now();
        let mut timeline = Timeline::default();
        let last = 10 * ENTRIES as Time;
        (1..=last).for_each(|time| timeline.applied(time, start + Duration::from_micros(time)));
        assert!(timeline.entries.len() <= ENTRIES);
        let now = start + Duration::from_micros(last);
        assert_eq!(timeline.lag(last - 1000, now), Duration::from_micros(999));
        assert!(timeline.lag(0, now) > timeline.lag(last / 2, now));
    }
}

//! How much of a turn goes to requests and how much to the dataflows, where the tunables leave that to the worker.
//!
//! With `adaptive`, `commands_per_turn`, `steps_per_turn` and `step_micros` are what a worker returns to. While the
//! dataflows want more steps than a turn has, it takes fewer requests and steps longer; while requests fill their budget
//! and the dataflows keep up, it takes more.

use crate::config::Tunables;

/// A budget moves at most this far, up and down.
const REACH: u64 = 16;

/// A worker's budgets for the next turn, as multiples of the tunables.
#[derive(Debug)]
pub(crate) struct Pace {
    /// In units of 1/REACH.
    requests: u64,
    steps: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { requests: REACH, steps: 1 }
    }
}

impl Pace {
    /// Requests to take in a turn.
    pub(crate) fn commands(&self, tunables: &Tunables) -> u64 {
        (tunables.commands_per_turn.saturating_mul(self.requests) / REACH).max(1)
    }

    /// Steps, and microseconds of stepping.
    pub(crate) fn steps(&self, tunables: &Tunables) -> (u64, u64) {
        let longer = |budget: u64| budget.saturating_mul(self.steps);
        (longer(tunables.steps_per_turn), longer(tunables.step_micros))
    }

    /// A turn is over: whether requests had to wait for the next one, whether the dataflows did.
    pub(crate) fn turned(&mut self, requests_wait: bool, dataflows_wait: bool, tunables: &Tunables) {
        if tunables.adaptive == 0 {
            *self = Pace::default();
        } else if dataflows_wait {
            self.steps = (self.steps * 2).min(REACH);
            self.requests = (self.requests / 2).max(1);
        } else {
            self.steps = (self.steps / 2).max(1);
            let most = if requests_wait { REACH * REACH } else { REACH };
            self.requests =
                if self.requests > most { self.requests / 2 } else { (self.requests * 2).min(most) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_settings_stay_what_they_are() {
        let (mut pace, tunables) = (Pace::default(), Tunables { adaptive: 0, ..Tunables::default() });
        for (requests, dataflows) in [(true, false), (true, true), (false, true)] {
            pace.turned(requests, dataflows, &tunables);
            assert_eq!(pace.commands(&tunables), tunables.commands_per_turn);
            assert_eq!(pace.steps(&tunables), (tunables.steps_per_turn, tunables.step_micros));
        }
    }

    #[test]
    fn what_waits_gets_more_within_bounds_and_both_return() {
        let (mut pace, tunables) = (Pace::default(), Tunables { adaptive: 1, ..Tunables::default() });
        let Tunables { commands_per_turn: commands, steps_per_turn: steps, step_micros: micros, .. } =
            tunables;
        (0..100).for_each(|_| pace.turned(true, true, &tunables));
        assert_eq!(pace.commands(&tunables), commands / REACH);
        assert_eq!(pace.steps(&tunables), (steps * REACH, micros * REACH));
        (0..100).for_each(|_| pace.turned(true, false, &tunables));
        assert_eq!(pace.commands(&tunables), commands * REACH);
        assert_eq!(pace.steps(&tunables), (steps, micros));
        (0..100).for_each(|_| pace.turned(false, false, &tunables));
        assert_eq!(pace.commands(&tunables), commands);
    }
}

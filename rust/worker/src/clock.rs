//! The cluster's clock: where ticks come from, and how they take effect.
//!
//! The first worker of the cluster looks at its machine's clock and has every worker know by a command, so that all
//! agree and what is at a time can be read by what `now` was then. It does so only while programs read `now`. The
//! machine's clock may jump: back, and `now` stands still until it is passed; ahead, and `now` jumps as well.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::Time;
use dataflow_protocol::spelling::{instant, write_instant};

use crate::command::{Command, Ticket};
use crate::connections::Connections;
use crate::member::{Member, Pending};

/// The time of day in µs since 1970, cut to whole ticks; `None` where there are none.
pub(crate) fn time_of_day(tick_ms: u64) -> Option<i64> {
    let tick = i64::try_from(tick_ms).ok()?.checked_mul(1000).filter(|tick| *tick > 0)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let micros = i64::try_from(now.as_micros()).ok()?;
    instant(micros - micros % tick)
}

/// An instant as the wire has it in JSON.
pub(crate) fn spelled(now: i64) -> String {
    let mut text = String::new();
    write_instant(now, &mut text);
    text
}

impl Member {
    /// Whether ticks are this worker's to give.
    fn gives_ticks(&self) -> bool {
        self.index().0 == 0 && self.tunables.now_tick_ms > 0 && self.engine.has_clock()
    }

    /// Sends a tick once it is time for one.
    pub(crate) fn tick_if_due(&mut self) {
        if !self.gives_ticks() {
            return;
        }
        let Some(now) = time_of_day(self.tunables.now_tick_ms) else { return };
        let shown = self.engine.now().max(self.ticked);
        if shown.is_none_or(|shown| shown < now) {
            self.ticked = Some(now);
            self.send(Command::Tick { now });
        }
    }

    /// How long until it is time for a tick, if this worker gives them.
    pub(crate) fn until_tick(&self) -> Option<Duration> {
        let tick = Duration::from_millis(self.tunables.now_tick_ms);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().filter(|_| self.gives_ticks())?;
        let past = now.as_nanos() % tick.as_nanos().max(1);
        Some(tick.saturating_sub(Duration::from_nanos(u64::try_from(past).unwrap_or_default())))
    }

    /// The clock shows `now` from `time` on, on every worker.
    pub(crate) fn tick(&mut self, time: Time, now: Option<i64>) {
        if now.is_some_and(|now| self.engine.tick(&self.worker, time, now) == Ok(true)) {
            // Subscribers hear how far they are of ticks as of transactions.
            self.subscriptions.transacted(time);
        }
    }

    /// The same because a client has asked for it.
    pub(crate) fn advanced(
        &mut self,
        time: Time,
        ticket: Ticket,
        now: i64,
        own: bool,
        net: &mut Connections,
    ) {
        let tick_ms = self.tunables.now_tick_ms;
        let refused = if tick_ms > 0 {
            let message = format!("cannot advance `now`: it moves by itself, every {tick_ms} ms");
            let hint = "Set the tunable `now_tick_ms` to 0 to move it by hand.".to_owned();
            Some(ErrorBody::new(ErrorCode::Conflict, message).with_hint(hint))
        } else if let Some(shown) = self.engine.now().filter(|shown| now < *shown) {
            let (now, shown) = (spelled(now), spelled(shown));
            let message = format!("cannot advance `now` to {now}: it is {shown} already");
            Some(ErrorBody::new(ErrorCode::Conflict, message))
        } else {
            self.tick(time, Some(now));
            None
        };
        if own && let Some(Pending::Advance { caller }) = self.pending.remove(&ticket) {
            match refused {
                Some(error) => net.error(&caller, &error),
                None => net.ok(&caller, &serde_json::json!({ "time": time })),
            }
            net.resume(caller.connection, ticket);
        }
    }
}

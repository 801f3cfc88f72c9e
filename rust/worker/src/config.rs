//! Every number that can be set: [`Config`] once, before the start; [`Tunables`] also while the server runs.

use std::time::Duration;

pub use dataflow_net::limits::Limits;
pub use dataflow_net::tls::Files;
use serde::{Deserialize, Serialize};

use crate::access::rules::Rules;

/// How this process is set up. Python fills it in from flags, file and environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address for clients, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Worker threads of this process.
    pub threads: usize,
    /// Threads that read, decode, encode and write for the workers; with none the workers do it themselves.
    pub io_threads: usize,
    /// Processes of the cluster.
    pub processes: usize,
    /// This process's index in the cluster.
    pub process: usize,
    /// Addresses on which the processes reach each other, by index; needed with more than one.
    pub mesh: Vec<String>,
    /// Shared by the processes of a cluster; one that doesn't know it isn't let in.
    pub secret: Option<String>,
    /// Between two signs of life that processes give each other. Default 1,000.
    pub heartbeat_millis: u32,
    /// Silence after which another process counts as gone, which ends the generation. Default 5,000.
    pub suspect_millis: u32,
    /// Answers `/echo` with a WebSocket that echoes, for conformance suites.
    pub enable_echo: bool,
    /// Lets a module ask by its name for something to go wrong in it, for test suites.
    pub enable_faults: bool,
    /// Starts with [`Tunables::spin_micros`] at its greatest: never parks, at the price of one core a worker.
    pub spin: bool,
    /// Requests that may wait for Python; more are answered `busy`.
    pub control_queue: usize,
    /// What connections may take and how long.
    pub limits: Limits,
    /// The certificate; without one there is no TLS.
    pub tls: Option<Files>,
    /// Who may do what.
    pub access: Rules,
    /// What `tune` can change, as it is at the start.
    pub tunables: Tunables,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: "127.0.0.1:6262".into(),
            threads: 1,
            io_threads: 0,
            processes: 1,
            process: 0,
            mesh: Vec::new(),
            secret: None,
            heartbeat_millis: 1_000,
            suspect_millis: 5_000,
            enable_echo: false,
            enable_faults: false,
            spin: false,
            control_queue: 1024,
            limits: Limits::default(),
            tls: None,
            access: Rules::default(),
            tunables: Tunables::default(),
        }
    }
}

impl Config {
    /// Between two signs of life.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_millis.into())
    }

    /// How long another process may be silent.
    pub fn suspect(&self) -> Duration {
        Duration::from_millis(self.suspect_millis.into())
    }
}

macro_rules! tunables {
    ($($(#[doc = $doc:literal])+ $name:ident = $default:expr, $least:expr;)+) => {
        /// What trades one part of the loop against another. `tune` changes them on every worker, in sequenced order.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Tunables {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Default for Tunables {
            fn default() -> Self {
                Tunables { $($name: $default,)+ }
            }
        }

        impl Tunables {
            /// The names, in the order of the declaration.
            pub const NAMES: &[&str] = &[$(stringify!($name),)+];

            /// Sets one by name.
            ///
            /// # Errors
            ///
            /// A message for the client if there is no such tunable or the value is too small. Nothing changes then.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), String> {
                match name {
                    $(stringify!($name) if !($least..).contains(&value) => {
                        Err(format!("tunable {name:?} must be at least {}", $least))
                    })+
                    $(stringify!($name) => {
                        self.$name = value;
                        Ok(())
                    })+
                    _ => Err(format!("no tunable {name:?}; there are {}", Self::NAMES.join(", "))),
                }
            }

            /// All of them, by name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }

            /// Whether all are within their bounds, as [`Self::set`] sees to it.
            ///
            /// # Errors
            ///
            /// The first that isn't, as a message.
            pub fn check(&self) -> Result<(), String> {
                let mut copy = self.clone();
                $(copy.set(stringify!($name), self.$name)?;)+
                Ok(())
            }
        }
    };
}

tunables! {
    /// Requests taken from all connections in a turn; the others wait in their sockets. Default 1,024.
    commands_per_turn = 1 << 10, 1;
    /// Requests taken from one connection before it is the next one's turn. Default 64.
    requests_per_visit = 64, 1;
    /// Bytes of requests taken in a turn. Default 4 MiB.
    bytes_per_turn = 4 << 20, 1;
    /// Steps of the dataflows in a turn, at most. Default 16.
    steps_per_turn = 16, 1;
    /// Microseconds of stepping after which a turn goes on to emit; looked at between steps only. Default 2,000.
    step_micros = 2_000, 1;
    /// Rows of transactions that a worker sends out at one time; further transactions get the next time, so that no step of the
    /// dataflows has much more to do at once. A single transaction is never divided. Default 16,384.
    max_rows_per_time = 1 << 14, 1;
    /// Microseconds that operators which can pause (joins, filters, projections, ranges) may go on in one step, all of them
    /// together; each gets its share. Default 1,000.
    operator_micros = 1_000, 1;
    /// Rows looked at for snapshots and reads in a turn. Default 32,768.
    emit_rows = 1 << 15, 1;
    /// Rows looked at for one snapshot or read before it is the next one's turn. Default 8,192.
    slice_rows = 1 << 13, 1;
    /// Microseconds an idle worker looks for work before it parks; it uses a core meanwhile. Default 0: it parks at once.
    spin_micros = 0, 0;
    /// Microseconds an idle worker parks at most; it is woken earlier by anything to do. Default 100,000.
    park_micros = 100_000, 1;
    /// Bytes at which a pushed batch is cut into several messages. Default 256 KiB.
    batch_bytes = 256 << 10, 1 << 10;
    /// Bytes queued for one connection beyond which its subscriptions are coalesced. Default 1 MiB.
    outbox_bytes = 1 << 20, 1 << 10;
    /// Rows one subscription may hold back, coalesced, for a slow reader or a snapshot under way; a slow reader's
    /// subscription then ends with `busy`, a snapshot starts again. Default 1 Mi.
    backlog_rows = 1 << 20, 1;
    /// Bytes of a snapshot that may wait for a slow reader; the subscription then ends with `busy`. Default 256 MiB.
    snapshot_bytes = 256 << 20, 1 << 10;
    /// Bytes a connection may have sent that wait for their effect; it isn't read further until they have. Default 8 MiB.
    inbox_bytes = 8 << 20, 1;
    /// Bytes a worker may have introduced that the relations themselves haven't finished; beyond, transactions
    /// wait. Default 256 MiB.
    inflight_bytes = 256 << 20, 1;
    /// Subscriptions of one connection; one more is `busy`. Default 4,096.
    connection_subscriptions = 1 << 12, 1;
    /// The greatest `limit` of a read or subscription in an order; more is `too-large`. Default 65,536.
    ranking_rows = 1 << 16, 1;
    /// First rows of relations, by relation, `where`, `order` and `limit`, that the cluster keeps for subscribers; one more
    /// is `busy`. Default 1,024.
    rankings = 1 << 10, 0;
    /// Milliseconds from one tick of the cluster's clock to the next, while programs read `now`; 0: it moves by `advance`
    /// only. Default 1,000.
    now_tick_ms = 1_000, 0;
    /// Rows of one transaction, those to insert and those to delete; more are `too-large`. Default 1 Mi.
    transaction_rows = 1 << 20, 1;
    /// Bytes of the dictionary of texts and other long values from which on it is swept for what nothing holds any more, whenever
    /// they have doubled since. Default 32 MiB.
    dictionary_bytes = 32 << 20, 1;
    /// Idempotency keys remembered. Default 1 Mi.
    key_retain = 1 << 20, 0;
    /// Iterations that a recursion may take; the module is ended with `interrupted` then, and so are those that depend on
    /// it. `limits` in `register` says otherwise for one module, also of the three below. 0: no limit. Default 1 Mi.
    query_iterations = 1 << 20, 0;
    /// Rows that a module's dataflow may hold on all workers, intermediate results included; ended beyond. 0: no limit.
    /// Default 1 Gi.
    query_rows = 1 << 30, 0;
    /// Bytes that a module's dataflow may hold on all workers; ended beyond. 0: no limit. Default 8 GiB.
    query_bytes = 8 << 30, 0;
    /// Milliseconds that a module may be behind what was transacted, or take for its first computation; ended beyond. 0:
    /// no limit. Default 600,000.
    query_lag_millis = 600_000, 0;
    /// Times a program is planned again, when the catalog has changed under it, before `conflict`. Default 5.
    replans = 5, 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunables_are_set_by_name_within_bounds() {
        let mut tunables = Tunables::default();
        assert_eq!(tunables.set("steps_per_turn", 3), Ok(()));
        assert_eq!(tunables.steps_per_turn, 3);
        assert!(tunables.set("steps_per_turn", 0).unwrap_err().contains("at least 1"));
        assert!(tunables.set("nonsense", 1).unwrap_err().contains("no tunable"));
        assert_eq!(tunables, Tunables { steps_per_turn: 3, ..Tunables::default() });
    }

    #[test]
    fn what_a_file_says_is_held_to_the_same_bounds() {
        assert_eq!(Tunables::default().check(), Ok(()));
        let wrong = Tunables { emit_rows: 0, ..Tunables::default() };
        assert!(wrong.check().unwrap_err().contains("\"emit_rows\" must be at least 1"));
    }
}

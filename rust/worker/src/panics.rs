//! Panics of the server's own threads: one line in the log instead of a page on standard error.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::thread;

/// What a poisoned queue between a worker and a socket says; timely makes it out of a connection that broke.
const DRAGGED: [&str; 2] = ["MergeQueue poisoned", "timely communication error"];

/// Logs panics of the server's threads and timely's; those of other threads go where they went before.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match thread::current().name() {
            Some(name) if name.starts_with("dataflow:") || name.starts_with("timely:") => log(name, info),
            _ => previous(info),
        }));
    });
}

fn log(thread: &str, info: &PanicHookInfo<'_>) {
    let why = text(info.payload());
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    if DRAGGED.iter().any(|sign| why.contains(sign)) {
        tracing::info!(thread, why, place, "a link to another process broke");
        return;
    }
    let backtrace = Backtrace::capture();
    let backtrace = if backtrace.status() == BacktraceStatus::Captured {
        format!("\n{backtrace}")
    } else {
        String::new()
    };
    tracing::error!(thread, why, place, "panic{backtrace}");
}

/// What a panic says.
pub(crate) fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

//! Helpers of `bench/e2e/fanout.py` and `bench/e2e/commands.py`, which start them.
//!
//! * `broadcast`: the least that a fan-out can be, to compare with: what one connection sends goes to all others.
//! * `fan`: subscribers of a server, of the bare broadcast or of Redis, and a publisher that measures.
//! * `sequencer`: a command's way through a bare sequencer, timely's or ours.

mod broadcast;
mod fan;
mod sequencer;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["broadcast"] => broadcast::serve(),
        ["fan", dialect, address, subscribers, messages] => {
            fan::measure(dialect, address, number(subscribers), number(messages))
        }
        ["sequencer", whose, workers, commands] => {
            sequencer::measure(whose, number(workers), number(commands))
        }
        ["sequencer", whose, workers, commands, epoch, process, addresses @ ..] => {
            let epoch = epoch.parse().unwrap_or_else(|_| panic!("{epoch:?} is not a time"));
            sequencer::measure_cluster(
                whose,
                number(workers),
                number(commands),
                epoch,
                number(process),
                addresses,
            );
        }
        _ => panic!(
            "broadcast | fan DIALECT ADDRESS SUBSCRIBERS MESSAGES \
             | sequencer WHOSE WORKERS COMMANDS [EPOCH PROCESS HOST:PORT…]"
        ),
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

/// The value below which this share of the values lies; sorts them.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share) as usize).min(values.len() - 1)]
}

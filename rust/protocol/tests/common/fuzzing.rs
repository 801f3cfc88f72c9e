//! Random inputs for as long as `FUZZ_SECONDS` says, and a memory for those that failed.
//!
//! Other crates' fuzzers include this file too.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseResult, TestRunner};

/// Seconds for each property, unless `FUZZ_SECONDS` says otherwise.
const SECONDS: f64 = 10.0;

/// Tries a property on random values until the time is up.
///
/// What failed before is tried first: its seeds are kept in `tests/regressions/NAME.txt` of the crate, and a failure
/// adds one, which is to be committed together with what mends it.
#[expect(clippy::print_stderr, reason = "how much was tried is what a run of a fuzzer tells")]
pub(crate) fn fuzz<S: Strategy>(
    crate_directory: &str,
    name: &str,
    strategy: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(SECONDS, |text| text.parse().expect("seconds"));
    let path: &'static str = format!("{crate_directory}/tests/regressions/{name}.txt").leak();
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(path))),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    let (begun, mut cases) = (Instant::now(), 0_u64);
    while cases == 0 || begun.elapsed() < Duration::from_secs_f64(seconds) {
        if let Err(failure) = TestRunner::new(config.clone()).run(strategy, &property) {
            panic!("{name}, after {cases} cases: {failure}");
        }
        cases += u64::from(config.cases);
    }
    eprintln!("{name}: {cases} cases in {:.1} s", begun.elapsed().as_secs_f64());
}

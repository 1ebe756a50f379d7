//! Many runs of a scenario, and what they showed.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds per scenario, unless `SIM_SEEDS` asks for another number.
const SEEDS: u64 = 200;

/// Seeds to run: as many as `SIM_SEEDS` says, or the one that `SIM_SEED` names.
pub fn seeds() -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    }
}

/// Says which seed it was if the scenario panics.
struct Named(u64);

impl Drop for Named {
    #[allow(clippy::print_stderr, reason = "beside the panic's own message")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with seed {}", self.0);
        }
    }
}

/// Runs a scenario with every seed, on every core. Results in the order of seeds.
pub fn over_seeds<T: Send>(scenario: impl Fn(u64) -> T + Sync) -> Vec<T> {
    run(scenario).into_iter().map(|(_, result)| result).collect()
}

/// The same for scenarios that may fail; fails with what each failing seed said.
pub fn each_seed<T: Send>(scenario: impl Fn(u64) -> Result<T, String> + Sync) -> Vec<T> {
    let (mut passed, mut failures) = (Vec::new(), Vec::new());
    for (seed, result) in run(scenario) {
        match result {
            Ok(figures) => passed.push(figures),
            Err(why) => failures.push(format!("seed {seed}: {why}")),
        }
    }
    let all = passed.len() + failures.len();
    assert!(failures.is_empty(), "{} of {all}:\n{}", failures.len(), failures.join("\n"));
    passed
}

fn run<T: Send>(scenario: impl Fn(u64) -> T + Sync) -> Vec<(u64, T)> {
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let taken = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        let taken = taken.take_while(|seed| *seed < seeds.end);
        taken
            .map(|seed| {
                let _named = Named(seed);
                (seed, scenario(seed))
            })
            .collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(u64, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    results.sort_by_key(|(seed, _)| *seed);
    results
}

/// Prints least, median and greatest of what the runs measured, for `--nocapture`.
#[allow(clippy::print_stdout, reason = "figures of the runs")]
pub fn tell(what: &str, figures: impl IntoIterator<Item = f64>) {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    if let (Some(least), Some(greatest)) = (figures.first(), figures.last()) {
        let median = figures[figures.len() / 2];
        println!("{what}: {least:.6} / {median:.6} / {greatest:.6} over {} runs", figures.len());
    }
}

/// Fails a scenario with the rest of the arguments unless the first holds.
macro_rules! check {
    ($holds:expr, $($why:tt)*) => {
        match $holds {
            true => {}
            false => return Err(format!($($why)*)),
        }
    };
}

pub(crate) use check;

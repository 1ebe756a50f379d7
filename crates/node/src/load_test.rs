//! `load-test`: the load tester of `sluice-load`, against this or any other LiveKit-compatible server.

use sluice_load::cli::{LoadTestArgs, execute};

/// Runs a load test.
///
/// # Errors
/// It could not run, or it missed a threshold.
pub(crate) fn run(arguments: &LoadTestArgs) -> anyhow::Result<()> {
    anyhow::ensure!(execute(arguments)?, "the load test missed its thresholds");
    Ok(())
}

//! Gives memory back to the system when there is less to do than before.
//!
//! mimalloc returns what has been free for a second, but looks for it only when a thread frees its next
//! page, or ends. A server that has become quiet does neither: what a thousand joins needed for a moment
//! would stay with it. A thread that ends is the one way to it that its safe interface leaves.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// Time between looks; each wakes an idle process once.
const INTERVAL: Duration = Duration::from_secs(4);

/// Bytes of stack of a thread that does nothing.
const STACK: usize = 64 << 10;

pub(crate) async fn give_back() {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Only a thread that has allocated has anything to clean up.
        let allocate = || drop(std::hint::black_box(Box::new(0u64)));
        let thread = std::thread::Builder::new().name("memory".to_owned()).stack_size(STACK);
        if let Err(error) = thread.spawn(allocate) {
            tracing::debug!(%error, "no thread to give memory back");
        }
    }
}

//! Locks that outlive a panic of another task: the state behind them stays whole, because nothing
//! under them can stop half-way.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a poisoned lock is used as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What the benchmark programs share: servers as processes, the scenarios, the floor, fits and tables.

// Programs of the terminal and the wall clock.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

pub mod arguments;
pub mod fit;
pub mod floor;
pub mod memory;
pub mod scenario;
pub mod server;
pub mod table;

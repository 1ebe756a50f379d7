//! The stand-in for Turms as a process, for tests in other languages: prints one line of JSON with
//! its ports and runs until its standard input ends.

#![allow(clippy::print_stdout)]

use std::io::Write;

use sluice_tests::fake_turms::{FakeTurms, LOGIN, PASSWORD};
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() {
    let fake = FakeTurms::start().await;
    println!(
        "{}",
        serde_json::json!({
            "admin": fake.admin.port(),
            "websocket": fake.websocket.port(),
            "tcp": fake.tcp.port(),
            "control": fake.control.port(),
            "login": LOGIN,
            "password": PASSWORD,
        })
    );
    // Whoever started us reads the line at once.
    let _ = std::io::stdout().flush();
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 64];
    while input.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
}

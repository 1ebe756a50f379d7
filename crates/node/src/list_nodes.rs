//! `list-nodes`: asks the running node for its state over HTTP and prints it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use sluice_signal::token::{ApiKeys, Claims, VideoGrant, mint};

use crate::config::Config;
use crate::debug;

/// How long the node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Largest answer that is read, bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// The table of nodes: one line of names, one line per node.
///
/// # Errors
/// The node does not run or refuses the configuration's keys.
pub(crate) fn run(config: &Config, now: Duration) -> anyhow::Result<String> {
    let address = reachable(config.http.addresses[0]);
    let (key, secret) = config.keys.iter().next().context("no API key is configured")?;
    let claims = Claims {
        video: Some(VideoGrant { room_list: true, ..VideoGrant::default() }),
        ..Claims::default()
    };
    let keys = ApiKeys::new([(key, secret.expose())]);
    let token = mint(&keys, key, &claims, Duration::from_secs(60), now)?;
    let answer = get(address, debug::NODE_PATH, &token)
        .with_context(|| format!("asking the node at {address} (does it run?)"))?;
    let node: Value = serde_json::from_str(&answer).context("the answer is not JSON")?;
    Ok(table(&[node]))
}

/// An address to connect to for one that was bound.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

fn get(address: SocketAddr, path: &str, token: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no HTTP answer") };
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200"), "it answers `{status}`: {body}");
    Ok(body.to_owned())
}

fn table(nodes: &[Value]) -> String {
    let columns = [
        ("ID", "id"),
        ("VERSION", "version"),
        ("REGION", "region"),
        ("STATE", "state"),
        ("CPUS", "cpus"),
        ("LOAD", "load_1m"),
        ("MEMORY MB", "memory_mb"),
        ("ROOMS", "rooms"),
        ("CLIENTS", "participants"),
        ("TRACKS IN", "tracks_in"),
        ("TRACKS OUT", "tracks_out"),
        ("BYTES/S IN", "bytes_in_per_sec"),
        ("BYTES/S OUT", "bytes_out_per_sec"),
        ("UPTIME S", "uptime_seconds"),
    ];
    let cell = |node: &Value, key: &str| match &node[key] {
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut rows = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>()];
    rows.extend(nodes.iter().map(|node| columns.iter().map(|(_, key)| cell(node, key)).collect()));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_missing_values_show() {
        let text = table(&[json!({"id": "ND_1", "region": "", "rooms": 12})]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("ROOMS"), lines[1].find("12"));
        assert_eq!(lines[0].find("REGION"), lines[1].find('-'));
    }

    #[test]
    fn wildcards_are_reached_over_loopback() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()), "127.0.0.1:1".parse().unwrap());
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()), "10.0.0.1:1".parse().unwrap());
    }
}

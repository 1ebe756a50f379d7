//! `ports`: what an operator must open in a firewall, from the configuration.

use std::fmt::Write;

use crate::config::{Config, UdpPorts};

/// One line per port.
pub(crate) fn describe(config: &Config) -> String {
    let mut text = String::new();
    let mut line = |proto: &str, ports: String, purpose: &str| {
        let _ = writeln!(text, "{proto}  {ports:<13} {purpose}");
    };
    let mut http: Vec<u16> = config.http.addresses.iter().map(std::net::SocketAddr::port).collect();
    http.dedup();
    for port in http {
        line("TCP", port.to_string(), "HTTP API and WebSocket signalling (put TLS before it)");
    }
    if let Some(port) = config.rtc.tcp_port {
        line("TCP", port.to_string(), "media over ICE-TCP, for clients without UDP");
    }
    match config.rtc.udp_ports {
        Some(UdpPorts { first, last }) if first == last => {
            line("UDP", first.to_string(), "media");
        }
        Some(UdpPorts { first, last }) => {
            line("UDP", format!("{first}-{last}"), "media, one port per worker from the first on");
        }
        None => {}
    }
    if let Some(prometheus) = &config.prometheus {
        line("TCP", prometheus.port.to_string(), "Prometheus metrics (keep it private)");
    }
    if let Some(port) = config.debug_port {
        line("TCP", port.to_string(), "state of the node (keep it private)");
    }
    text
}

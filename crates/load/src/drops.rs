//! Datagrams that the kernel threw away because a socket's buffer was full, from `/proc/net/udp`
//! (proc(5)): ours, and those of a server on the same machine. They say whose loss a loss is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The ports that matter; noted a few times in the life of each connection.
#[derive(Debug, Default)]
pub(crate) struct Ports(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    ours: BTreeSet<u16>,
    server: BTreeSet<u16>,
}

/// Datagrams dropped so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReceiveDrops {
    pub(crate) ours: u64,
    /// Of the server's sockets, if they are on this machine.
    pub(crate) server: u64,
}

impl Ports {
    pub(crate) fn note_ours(&self, port: u16) {
        self.noted().ours.insert(port);
    }

    pub(crate) fn note_server(&self, ports: impl Iterator<Item = u16>) {
        self.noted().server.extend(ports);
    }

    /// Looks at the sockets of this machine.
    pub(crate) fn receive_drops(&self) -> ReceiveDrops {
        let noted = self.noted();
        let mut drops = ReceiveDrops::default();
        for table in ["/proc/net/udp", "/proc/net/udp6"] {
            // Without the table nothing is known.
            for (port, count) in read(&fs::read_to_string(table).unwrap_or_default()) {
                if noted.ours.contains(&port) {
                    drops.ours += count;
                } else if noted.server.contains(&port) {
                    drops.server += count;
                }
            }
        }
        drops
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        // A panic of another participant leaves whole entries behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReceiveDrops {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            ours: self.ours.saturating_sub(before.ours),
            server: self.server.saturating_sub(before.server),
        }
    }
}

/// Local port and drops of each socket of the table; several may share a port.
fn read(table: &str) -> BTreeMap<u16, u64> {
    let mut drops = BTreeMap::new();
    for line in table.lines().skip(1) {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1).and_then(|address| address.rsplit_once(':'));
        let port = local.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        let count: Option<u64> = fields.last().and_then(|count| count.parse().ok());
        if let (Some(port), Some(count)) = (port, count) {
            *drops.entry(port).or_default() += count;
        }
    }
    drops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_sockets_on_one_port_add_up() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  \
                     timeout inode ref pointer drops\n\
                     1: 0100007F:1ECA 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 7 2 0 12\n\
                     2: 0100007F:1ECA 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 8 2 0 30\n\
                     3: 00000000:C350 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 9 2 0 0\n";
        assert_eq!(read(table), BTreeMap::from([(7882, 42), (50_000, 0)]));
        assert!(read("").is_empty());
    }
}

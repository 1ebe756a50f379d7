//! The two peer connections of a participant: they start on the media thread when their remote
//! description is there, and report when they are connected.

use std::net::SocketAddr;

use anyhow::bail;
use sluice_proto::{SignalTarget, TrickleRequest};
use sluice_transport::sdp::{RemoteCandidate, parse_candidate_init};
use sluice_transport::{ChannelSpec, TransportProto};

use super::Participant;
use crate::connection::{ConnectionEvent, ConnectionParams};
use crate::sdp::Description;
use crate::side::Side;
use crate::worker::{Command, ConnectionId, Worker};

impl Participant {
    pub(super) fn subscriber_id(&self) -> ConnectionId {
        2 * self.index
    }

    pub(super) fn publisher_id(&self) -> ConnectionId {
        2 * self.index + 1
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.shared.workers[self.index % self.shared.workers.len()]
    }

    /// A connection by its target, with its name on the media thread.
    fn side(&mut self, target: SignalTarget) -> (ConnectionId, &mut Side) {
        match target {
            SignalTarget::Subscriber => (self.subscriber_id(), &mut self.subscriber),
            SignalTarget::Publisher => (self.publisher_id(), &mut self.publisher),
        }
    }

    /// Starts a connection when its description arrives first.
    pub(super) fn start(&mut self, target: SignalTarget, remote: &Description, controlling: bool) {
        let (id, side) = self.side(target);
        let (Some(local), Some(socket), false) = (&side.local, side.socket.take(), side.started)
        else {
            return;
        };
        let local = local.ice.clone();
        side.started = true;
        let mut candidates = remote.candidates.clone();
        candidates.append(&mut side.early_candidates);
        self.shared.ports.note_server(candidates.iter().map(SocketAddr::port));
        let opens = self.plan.data.is_some() && target == SignalTarget::Publisher;
        let params = ConnectionParams {
            socket,
            local,
            identity: self.shared.identity.clone(),
            remote: remote.remote.clone(),
            candidates,
            controlling,
            open_channels: if opens { ChannelSpec::livekit() } else { Vec::new() },
            events: self.events_in.clone(),
            target,
        };
        self.worker().send(Command::Add(id, Box::new(params)));
    }

    pub(super) fn on_trickle(&mut self, trickle: &TrickleRequest) -> anyhow::Result<()> {
        let parsed = parse_candidate_init(&trickle.candidate_init);
        let candidate = match parsed.ok().and_then(|trickled| trickled.candidate) {
            Some(RemoteCandidate::Address(c)) if c.proto == TransportProto::Udp => c.addr,
            _ => return Ok(()),
        };
        let (id, side) = self.side(trickle.target());
        if side.started {
            self.worker().send(Command::AddCandidates(id, vec![candidate]));
        } else {
            side.early_candidates.push(candidate);
        }
        Ok(())
    }

    pub(super) fn on_event(
        &mut self,
        target: SignalTarget,
        event: ConnectionEvent,
    ) -> anyhow::Result<()> {
        match event {
            ConnectionEvent::Connected => {
                let is_primary = (target == SignalTarget::Subscriber) == self.subscriber_primary;
                if is_primary && !self.joined {
                    self.joined = true;
                    self.shared.outcomes.joined(self.started.elapsed());
                }
                Ok(())
            }
            ConnectionEvent::Failed(reason) => bail!("{target:?} connection failed: {reason}"),
        }
    }
}

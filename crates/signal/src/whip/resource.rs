//! WHIP and WHEP resources: for each client a session with its room, kept by a task of its own that
//! speaks LiveKit's signalling in the client's stead.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dashmap::DashMap;
use sluice_control::{SessionOutput, SharedResponse};
use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use tokio::sync::{mpsc, oneshot};

use crate::host::{HostedSession, SessionHost, SessionSink, SessionSource};
use crate::stats::SignalStats;

/// Commands that may wait for one resource; more are refused.
const COMMANDS: usize = 8;

/// What the HTTP side wants of a resource.
#[derive(Debug)]
pub(super) enum Command {
    /// Answer this offer, which restarts ICE.
    Restart { offer: String, answer: oneshot::Sender<String> },
    /// Leave the room.
    End,
}

/// A resource as the HTTP side sees it.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    /// Room and identity: who may change it.
    pub(super) room: String,
    pub(super) identity: String,
    /// Names the ICE session: our ufrag.
    pub(super) etag: String,
    /// The client's ufrag.
    pub(super) client_ufrag: String,
    /// The client's latest offer.
    pub(super) offer: Arc<str>,
    commands: mpsc::Sender<Command>,
}

impl Handle {
    /// Hands a command over; false when the resource is busy or over.
    pub(super) fn send(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }
}

/// All resources of this server, by SID of the participant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry(Arc<DashMap<String, Handle>>);

impl Registry {
    pub(super) fn get(&self, sid: &str) -> Option<Handle> {
        self.0.get(sid).map(|handle| handle.clone())
    }

    /// Takes over what an ICE restart has changed.
    pub(super) fn restarted(&self, sid: &str, etag: String, client_ufrag: String, offer: &str) {
        if let Some(mut handle) = self.0.get_mut(sid) {
            handle.etag = etag;
            handle.client_ufrag = client_ufrag;
            handle.offer = offer.into();
        }
    }
}

/// Which tracks a client gets that cannot ask for any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Selection {
    /// None.
    #[default]
    Nothing,
    /// Those of everybody, as they fit into the client's sections.
    Everything,
    /// By identity: tracks of these names, or all of them.
    Of(HashMap<String, Option<Vec<String>>>),
}

impl Selection {
    fn wants(&self, participant: &proto::ParticipantInfo, track: &proto::TrackInfo) -> bool {
        match self {
            // The room subscribes by itself.
            Self::Nothing | Self::Everything => false,
            Self::Of(identities) => match identities.get(&participant.identity) {
                Some(Some(names)) => names.contains(&track.name),
                Some(None) => true,
                None => false,
            },
        }
    }
}

/// Parts of a resource that has its answer.
pub(super) struct Opened<H: SessionHost> {
    pub(super) sid: String,
    pub(super) session: HostedSession<H>,
    pub(super) selection: Selection,
    /// Participants that the room named so far.
    pub(super) known: Vec<proto::ParticipantInfo>,
    pub(super) room: String,
    pub(super) identity: String,
    pub(super) etag: String,
    pub(super) client_ufrag: String,
    pub(super) offer: Arc<str>,
}

/// Registers a resource and starts its task.
pub(super) fn start<H: SessionHost>(
    opened: Opened<H>,
    registry: &Registry,
    stats: Arc<SignalStats>,
) {
    let Opened { sid, session, selection, known, room, identity, etag, client_ufrag, offer } =
        opened;
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let handle = Handle { room, identity, etag, client_ufrag, offer, commands };
    registry.0.insert(sid.clone(), handle);
    let driver =
        Driver { session, inbox, selection, subscribed: HashSet::new(), answer: None, next_id: 2 };
    let registry = registry.clone();
    tokio::spawn(async move {
        stats.one_shot_open.add();
        driver.run(known).await;
        registry.0.remove(&sid);
        stats.one_shot_open.sub();
    });
}

struct Driver<H: SessionHost> {
    session: HostedSession<H>,
    inbox: mpsc::Receiver<Command>,
    selection: Selection,
    /// SIDs of the tracks asked for.
    subscribed: HashSet<String>,
    /// Who waits for the answer to which offer.
    answer: Option<(u32, oneshot::Sender<String>)>,
    next_id: u32,
}

impl<H: SessionHost> Driver<H> {
    /// Runs until the room closes the session or the client ends it. Dropping the session tells
    /// the room.
    async fn run(mut self, known: Vec<proto::ParticipantInfo>) {
        self.subscribe(&known).await;
        loop {
            tokio::select! {
                output = self.session.responses.next() => match output {
                    Some(SessionOutput::Message(response)) => self.take(&response).await,
                    // The client's token only matters when it calls.
                    Some(SessionOutput::RefreshToken(_) | SessionOutput::RoomMoved(_)) => {}
                    Some(SessionOutput::Close(_)) | None => return,
                },
                command = self.inbox.recv() => match command {
                    Some(Command::Restart { offer, answer }) => {
                        // An earlier one that still waits has been overtaken.
                        self.answer = Some((self.next_id, answer));
                        self.offer(offer).await;
                    }
                    Some(Command::End) => self.leave().await,
                    None => return,
                },
            }
        }
    }

    async fn take(&mut self, response: &SharedResponse) {
        match response.response() {
            Some(Response::Answer(answer)) => {
                if let Some((_, waiting)) = self.answer.take_if(|(id, _)| *id == answer.id) {
                    // The caller may have given up.
                    let _ = waiting.send(answer.sdp.clone());
                }
            }
            Some(Response::Update(update)) => self.subscribe(&update.participants).await,
            _ => {}
        }
    }

    async fn subscribe(&mut self, participants: &[proto::ParticipantInfo]) {
        let mut wanted = Vec::new();
        for participant in participants {
            for track in &participant.tracks {
                let wants = self.selection.wants(participant, track);
                if wants && self.subscribed.insert(track.sid.clone()) {
                    wanted.push(track.sid.clone());
                }
            }
        }
        if !wanted.is_empty() {
            let update = proto::UpdateSubscription {
                track_sids: wanted,
                subscribe: true,
                participant_tracks: Vec::new(),
            };
            self.request(Request::Subscription(update)).await;
        }
    }

    async fn offer(&mut self, sdp: String) {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let offer = proto::SessionDescription {
            r#type: "offer".into(),
            sdp,
            id,
            ..proto::SessionDescription::default()
        };
        self.request(Request::Offer(offer)).await;
    }

    async fn leave(&mut self) {
        let leave = proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated.into(),
            ..proto::LeaveRequest::default()
        };
        self.request(Request::Leave(leave)).await;
    }

    async fn request(&mut self, message: Request) {
        // A room that is over closes the session, which ends the task.
        self.session.requests.send(proto::SignalRequest { message: Some(message) }).await;
    }
}

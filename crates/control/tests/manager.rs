//! The manager over engines that only record: rooms come and go, slow clients lose only their own
//! connection, events find their room.

#![allow(clippy::disallowed_types, reason = "the recording engine is shared between threads")]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_control::{
    Grants, JoinError, JoinParams, ManagerConfig, MediaEngine, RoomManager, RoomSettings, Session,
    SessionOutput, WebhookKind,
};
use sluice_engine::SendError;
use sluice_engine::api::{
    Command, Event, EventKind, PeerId, RoomKey, SubscriptionId, TrackId, WorkerId,
};
use sluice_proto as proto;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_transport::{Candidate, Fingerprint, IceCredentials};
use tokio::sync::mpsc;

/// An engine that keeps what it is told.
#[derive(Default)]
struct Recorder {
    commands: Mutex<Vec<Command>>,
    serial: AtomicU64,
    /// Refuses this many commands as if the queue were full.
    full: AtomicUsize,
}

impl Recorder {
    fn next(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Room keys of the peers that were made.
    fn created(&self) -> Vec<(RoomKey, PeerId)> {
        let commands = self.commands.lock().unwrap();
        let created = commands.iter().filter_map(|command| match command {
            Command::CreatePeer(create) => Some((create.room, create.peer)),
            _ => None,
        });
        created.collect()
    }

    fn closed(&self) -> usize {
        let commands = self.commands.lock().unwrap();
        commands.iter().filter(|command| matches!(command, Command::ClosePeer { .. })).count()
    }
}

impl MediaEngine for Recorder {
    fn send(&self, command: Command) -> Result<(), SendError> {
        let full = |left: usize| left.checked_sub(1);
        if self.full.fetch_update(Ordering::Relaxed, Ordering::Relaxed, full).is_ok() {
            return Err(SendError::Full(Box::new(command)));
        }
        self.commands.lock().unwrap().push(command);
        Ok(())
    }

    fn place(&self, _: RoomKey) -> WorkerId {
        WorkerId(0)
    }

    fn next_peer_id(&self, worker: WorkerId) -> PeerId {
        PeerId::new(worker, self.next())
    }

    fn next_track_id(&self, worker: WorkerId) -> TrackId {
        TrackId::new(worker, self.next())
    }

    fn next_subscription_id(&self, worker: WorkerId) -> SubscriptionId {
        SubscriptionId::new(worker, self.next())
    }

    fn new_ice_credentials(&self, _worker: WorkerId) -> IceCredentials {
        IceCredentials { ufrag: format!("A{:07}", self.next()), pwd: "p".repeat(24) }
    }

    fn candidates(&self, _worker: WorkerId) -> Vec<Candidate> {
        Vec::new()
    }

    fn fingerprint(&self) -> Fingerprint {
        format!("sha-256 {}", ["AB"; 32].join(":")).parse().unwrap()
    }
}

fn manager(config: ManagerConfig) -> (RoomManager, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    (RoomManager::new(recorder.clone(), config), recorder)
}

fn params(identity: &str) -> JoinParams {
    JoinParams {
        identity: identity.into(),
        client_info: proto::ClientInfo { protocol: 16, ..Default::default() },
        ..JoinParams::default()
    }
}

async fn join(manager: &RoomManager, room: &str, identity: &str) -> Session {
    manager.join(room, RoomSettings::default(), params(identity)).await.unwrap()
}

async fn send(session: &Session, message: Request) -> bool {
    session.requests.send(proto::SignalRequest { message: Some(message) }).await
}

/// Outputs until one of them is what is looked for.
async fn until<T>(session: &mut Session, find: impl Fn(&SessionOutput) -> Option<T>) -> T {
    loop {
        let output = session.responses.next().await.expect("the session goes on");
        if let Some(found) = find(&output) {
            return found;
        }
    }
}

fn left(output: &SessionOutput) -> Option<proto::DisconnectReason> {
    match output {
        SessionOutput::Message(message) => match message.response() {
            Some(Response::Leave(leave)) => Some(leave.reason()),
            _ => None,
        },
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_makes_its_room_and_hears_the_join_response_first() {
    let (manager, recorder) = manager(ManagerConfig::default());
    let mut session = join(&manager, "r", "alice").await;
    assert!(session.participant_sid.as_ref().unwrap().starts_with("PA_"));
    let Some(SessionOutput::Message(first)) = session.responses.next().await else {
        panic!("no message");
    };
    assert!(matches!(first.response(), Some(Response::Join(_))));
    assert_eq!(recorder.created().len(), 1);
    let rooms = manager.list_rooms(&[]);
    assert_eq!((rooms[0].name.as_str(), rooms[0].num_participants), ("r", 1));
    assert!(manager.list_rooms(&["other".into()]).is_empty());
    assert_eq!((manager.stats().rooms, manager.stats().participants), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn without_auto_create_only_those_who_may_create_rooms_open_one() {
    let config = ManagerConfig { auto_create: false, ..ManagerConfig::default() };
    let (manager, _recorder) = manager(config);
    let refused = manager.join("r", RoomSettings::default(), params("alice")).await;
    assert_eq!(refused.unwrap_err(), JoinError::RoomNotFound);
    assert_eq!(manager.check_join("r", &Grants::default()), Err(JoinError::RoomNotFound));
    let mut creator = params("bob");
    creator.grants.room_create = true;
    let _bob = manager.join("r", RoomSettings::default(), creator).await.unwrap();
    join(&manager, "r", "alice").await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_session_leaves_the_room() {
    let (manager, recorder) = manager(ManagerConfig::default());
    let session = join(&manager, "r", "alice").await;
    drop(session);
    while !manager.list_participants("r").await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(recorder.closed(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_room_ends_and_its_name_is_free() {
    let (manager, _recorder) = manager(ManagerConfig::default());
    let session = join(&manager, "r", "alice").await;
    let sid = manager.list_rooms(&[])[0].sid.clone();
    drop(session);
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(manager.list_rooms(&[]).is_empty());
    let _session = join(&manager, "r", "alice").await;
    assert_ne!(manager.list_rooms(&[])[0].sid, sid);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_room_says_goodbye_and_can_be_joined_anew_at_once() {
    let (manager, _recorder) = manager(ManagerConfig::default());
    let mut session = join(&manager, "r", "alice").await;
    manager.delete_room("r").await.unwrap();
    assert_eq!(until(&mut session, left).await, proto::DisconnectReason::RoomDeleted);
    assert!(matches!(session.responses.next().await, Some(SessionOutput::Close(_))));
    assert!(session.responses.next().await.is_none());
    assert!(!send(&session, Request::Ping(1)).await);
    assert!(manager.delete_room("r").await.is_err());
    join(&manager, "r", "alice").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_loses_only_its_own_connection() {
    let (manager, _recorder) = manager(ManagerConfig::default());
    let mut slow = join(&manager, "r", "slow").await;
    let mut quick = join(&manager, "r", "quick").await;
    for index in 0..1100 {
        let request = format!("metadata {index}");
        manager.update_room_metadata("r", request).await.unwrap();
        while quick.responses.try_next().is_some() {}
    }
    assert_eq!(manager.stats().slow_sessions, 1);
    let mut count = 0;
    while slow.responses.next().await.is_some() {
        count += 1;
    }
    assert_eq!(count, 1000);
    // Media never connected, so that nothing is left of it.
    let identities: Vec<String> = manager
        .list_participants("r")
        .await
        .unwrap()
        .into_iter()
        .map(|participant| participant.identity)
        .collect();
    assert_eq!(identities, ["quick"]);
    assert!(send(&quick, Request::Ping(1)).await);
}

#[tokio::test(start_paused = true)]
async fn events_find_their_room_by_key() {
    let (manager, recorder) = manager(ManagerConfig::default());
    let _other = join(&manager, "other", "alice").await;
    let _session = join(&manager, "r", "alice").await;
    let (events, receiver) = mpsc::channel(8);
    tokio::spawn(manager.clone().run_events(receiver));
    let (room, peer) = recorder.created()[1];
    let remote = "127.0.0.1:9".parse().unwrap();
    let kind = EventKind::PeerConnected { peer, remote, tcp: false, srtp_profile: "test" };
    events.send(Event { room, kind }).await.unwrap();
    loop {
        let state = |room: &'static str| {
            let manager = manager.clone();
            async move { manager.get_participant(room, "alice").await.unwrap().state() }
        };
        if state("r").await == proto::participant_info::State::Active {
            assert_ne!(state("other").await, proto::participant_info::State::Active);
            break;
        }
        tokio::task::yield_now().await;
    }
    // Events of rooms that are over are ignored.
    let kind = EventKind::PeerDisconnected { peer };
    events.send(Event { room: RoomKey(999), kind }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn commands_wait_in_order_for_a_busy_worker() {
    let (manager, recorder) = manager(ManagerConfig::default());
    recorder.full.store(3, Ordering::Relaxed);
    let alice = join(&manager, "r", "alice").await;
    let _bob = join(&manager, "r", "bob").await;
    let _carol = join(&manager, "r", "carol").await;
    drop(alice);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let peers: Vec<PeerId> = recorder.created().iter().map(|(_, peer)| *peer).collect();
    assert_eq!(peers.len(), 3);
    assert!(peers.is_sorted());
    assert_eq!(recorder.closed(), 1);
    assert_eq!(manager.stats().commands_dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn a_resume_without_a_room_is_told_to_start_anew() {
    let (manager, _recorder) = manager(ManagerConfig::default());
    let params = JoinParams { reconnect: true, ..params("alice") };
    let mut session = manager.join("r", RoomSettings::default(), params).await.unwrap();
    assert_eq!(session.participant_sid, None);
    assert_eq!(until(&mut session, left).await, proto::DisconnectReason::StateMismatch);
    assert!(manager.list_rooms(&[]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn creating_a_room_twice_keeps_it_and_takes_explicit_settings() {
    let (manager, _recorder) = manager(ManagerConfig::default());
    let first = manager
        .create_room(proto::CreateRoomRequest { name: "r".into(), ..Default::default() })
        .await
        .unwrap();
    assert_eq!((first.empty_timeout, first.departure_timeout), (300, 20));
    let second = manager
        .create_room(proto::CreateRoomRequest {
            name: "r".into(),
            max_participants: 7,
            metadata: "m".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(second.sid, first.sid);
    assert_eq!((second.max_participants, second.metadata.as_str()), (7, "m"));
    let unnamed = manager.create_room(proto::CreateRoomRequest::default()).await;
    assert!(unnamed.is_err());
}

#[tokio::test(start_paused = true)]
async fn shutdown_says_goodbye_to_everyone_and_takes_nobody_in() {
    let (manager, recorder) = manager(ManagerConfig::default());
    let mut a = join(&manager, "a", "alice").await;
    let mut b = join(&manager, "b", "bob").await;
    manager.shutdown().await;
    for session in [&mut a, &mut b] {
        assert_eq!(until(session, left).await, proto::DisconnectReason::ServerShutdown);
    }
    assert_eq!(recorder.closed(), 2);
    let refused = manager.join("c", RoomSettings::default(), params("carol")).await;
    assert_eq!(refused.unwrap_err(), JoinError::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn calls_into_missing_rooms_say_so() {
    let (manager, _recorder) = manager(ManagerConfig::default());
    assert!(manager.list_participants("r").await.unwrap().is_empty(), "as in LiveKit");
    assert!(manager.remove_participant("r", "alice").await.is_err());
    let request = proto::UpdateParticipantRequest { room: "r".into(), ..Default::default() };
    assert!(manager.update_participant(request).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_taken_back_opens_the_room_no_more() {
    let (manager, _recorder) = manager(ManagerConfig::default());
    let issued_at = |seconds: u64| JoinParams { token_issued_at: seconds, ..params("alice") };
    let _session = manager.join("r", RoomSettings::default(), issued_at(100)).await.unwrap();
    manager.revoke_tokens("r", "alice", 200).await.unwrap();
    let refused = manager.join("r", RoomSettings::default(), issued_at(199)).await.unwrap_err();
    assert_eq!(refused, JoinError::NotAllowed("token has been revoked".into()));
    assert_eq!(refused.http_status(), 401);
    // A resume is a join, too.
    let resume = JoinParams { reconnect: true, ..issued_at(199) };
    assert!(manager.join("r", RoomSettings::default(), resume).await.is_err());
    assert!(manager.join("r", RoomSettings::default(), issued_at(200)).await.is_ok());
    join(&manager, "r", "bob").await;
}

#[tokio::test(start_paused = true)]
async fn presets_fill_in_what_a_request_leaves_out() {
    let preset = proto::RoomConfiguration {
        empty_timeout: 7,
        max_participants: 3,
        metadata: "preset".into(),
        ..Default::default()
    };
    let presets = [("short".to_owned(), preset)].into();
    let (manager, _recorder) = manager(ManagerConfig { presets, ..ManagerConfig::default() });
    let request = proto::CreateRoomRequest {
        name: "r".into(),
        room_preset: "short".into(),
        max_participants: 5,
        ..Default::default()
    };
    let room = manager.create_room(request.clone()).await.unwrap();
    assert_eq!((room.empty_timeout, room.max_participants), (7, 5));
    assert_eq!(room.metadata, "preset");
    let unknown = proto::CreateRoomRequest { room_preset: "none".into(), ..request };
    let error = manager.create_room(unknown).await.unwrap_err().to_string();
    assert_eq!(error, "unknown room configuration in create room request");
    let settings = RoomSettings { preset: "none".into(), ..RoomSettings::default() };
    let refused = manager.join("s", settings, params("alice")).await.unwrap_err();
    assert_eq!(refused.http_status(), 400);
}

#[tokio::test(start_paused = true)]
async fn every_observer_hears_of_a_room_and_a_full_queue_is_counted() {
    let (all, mut heard) = mpsc::channel(100);
    let (full, _kept) = mpsc::channel(1);
    let config = ManagerConfig { observers: vec![all, full], ..ManagerConfig::default() };
    let (manager, _recorder) = manager(config);
    let _session = join(&manager, "r", "alice").await;
    manager.delete_room("r").await.unwrap();
    let mut kinds = Vec::new();
    while let Ok(event) = heard.try_recv() {
        kinds.push(event.kind);
    }
    let expected = [
        WebhookKind::RoomStarted,
        WebhookKind::ParticipantConnectionAborted,
        WebhookKind::RoomFinished,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(manager.stats().webhooks_dropped, 2);
}

#[tokio::test(start_paused = true)]
async fn a_participant_is_forwarded_until_it_leaves_its_room() {
    let (manager, _recorder) = manager(ManagerConfig::default());
    let alice = join(&manager, "r", "alice").await;
    let request = proto::ForwardParticipantRequest {
        room: "r".into(),
        identity: "alice".into(),
        destination_room: "s".into(),
    };
    manager.forward_participant(request.clone()).await.unwrap();
    assert_eq!(manager.list_participants("s").await.unwrap()[0].identity, "alice");
    drop(alice);
    while !manager.list_participants("s").await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(manager.forward_participant(request).await.is_err());
}

//! One participant: joins over signalling, negotiates its two peer connections (LiveKit's v0),
//! publishes, chooses what to watch, and leaves when told. Media runs on a [`Worker`].
//!
//! Here is its life on the signalling socket. What it sends is in [`publishing`], what it receives
//! in [`subscribing`], and both connections in [`transport`].

mod publishing;
mod subscribing;
mod transport;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_proto::{
    JoinResponse, LeaveRequest, ParticipantInfo, Ping, SignalTarget, request_response,
};
use sluice_transport::DtlsIdentity;
use tokio::sync::{mpsc, watch};

use crate::connection::ConnectionEvent;
use crate::drops::Ports;
use crate::outcome::Outcomes;
use crate::plan::{Options, ParticipantPlan};
use crate::roster::{Census, Note, Roster};
use crate::sdp::OfferedTrack;
use crate::side::Side;
use crate::signal::Signal;
use crate::worker::{Command, Worker};

/// How long a join may take, from the WebSocket to a connected peer connection.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between pings (LiveKit's `ping_interval`).
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// What all participants share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) identity: Arc<DtlsIdentity>,
    pub(crate) workers: Vec<Worker>,
    /// Our address towards the server.
    pub(crate) local_ip: IpAddr,
    pub(crate) outcomes: Outcomes,
    /// Becomes true when everybody shall leave.
    pub(crate) stop: watch::Receiver<bool>,
    /// Becomes true when the share of the plan shall lose its signalling.
    pub(crate) storm: watch::Receiver<bool>,
    /// Becomes true when everybody may subscribe.
    pub(crate) subscribe: watch::Receiver<bool>,
    /// Becomes true when tracks that were published muted shall flow.
    pub(crate) unmute: watch::Receiver<bool>,
    /// Becomes true when everybody shall note whom it sees.
    pub(crate) count: watch::Receiver<bool>,
    pub(crate) census: Census,
    /// Where to look for datagrams that the kernel dropped.
    pub(crate) ports: Ports,
    /// Who speaks, as index of the publisher in its room; `None`: everybody.
    pub(crate) speaker: watch::Receiver<Option<usize>>,
}

/// Runs one participant from join to leave, and notes what came of it.
pub(crate) async fn run(shared: Arc<Shared>, index: usize, plan: ParticipantPlan) {
    let mut participant = Participant::new(shared.clone(), index, plan);
    let result = participant.run().await;
    for id in [participant.subscriber_id(), participant.publisher_id()] {
        participant.worker().send(Command::Close(id));
    }
    match result {
        Ok(()) => {}
        Err(error) if participant.joined => shared.outcomes.dropped(format!("{error:#}")),
        Err(error) => shared.outcomes.join_failed(format!("{error:#}")),
    }
}

/// Why a conversation on one socket ended.
enum End {
    /// Everybody leaves.
    Stopped,
    /// A storm took the socket.
    SignalLost,
}

struct Participant {
    shared: Arc<Shared>,
    index: usize,
    plan: ParticipantPlan,
    started: Instant,
    joined: bool,
    /// Ours.
    sid: String,
    roster: Roster,
    /// Whether it may still lose its signalling in a storm.
    may_drop: bool,
    /// The connection that counts as being connected.
    subscriber_primary: bool,
    publisher: Side,
    subscriber: Side,
    events: mpsc::Receiver<(SignalTarget, ConnectionEvent)>,
    events_in: mpsc::Sender<(SignalTarget, ConnectionEvent)>,
    offered: Vec<OfferedTrack>,
    /// SIDs of our tracks by their cid.
    published: BTreeMap<String, String>,
    offer_id: u32,
    /// When each track of others was asked for.
    wanted: BTreeMap<String, Instant>,
    /// Videos watched, by publisher.
    watched_videos: BTreeMap<String, String>,
    /// Who was announced before it may subscribe.
    deferred: Vec<ParticipantInfo>,
    /// Its tracks are not muted, or not any more.
    unmuted: bool,
}

impl Participant {
    fn new(shared: Arc<Shared>, index: usize, plan: ParticipantPlan) -> Self {
        let (events_in, events) = mpsc::channel(8);
        let muted = plan.muted;
        Self {
            may_drop: index % 100 < shared.options.storm_percent,
            sid: String::new(),
            roster: Roster::default(),
            shared,
            index,
            plan,
            started: Instant::now(),
            joined: false,
            subscriber_primary: true,
            publisher: Side::default(),
            subscriber: Side::default(),
            events,
            events_in,
            offered: Vec::new(),
            published: BTreeMap::new(),
            offer_id: 0,
            wanted: BTreeMap::new(),
            watched_videos: BTreeMap::new(),
            deferred: Vec::new(),
            unmuted: !muted,
        }
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let options = &self.shared.options;
        let (room, identity) = (&self.plan.room, &self.plan.identity);
        let token = crate::token::mint(&options.api_key, &options.api_secret, room, identity)?;
        let auto_subscribe = self.plan.auto_subscribe();
        let mut signal = Signal::connect(&options.url, &token, auto_subscribe, None).await?;
        let mut result = self.converse(&mut signal).await;
        if matches!(result, Ok(End::SignalLost)) {
            // Dropped without a close: as the network does it.
            drop(signal);
            let options = &self.shared.options;
            let sid = Some(self.sid.as_str());
            signal = Signal::connect(&options.url, &token, auto_subscribe, sid).await?;
            result = self.converse(&mut signal).await;
        }
        let _ = signal.send(Request::Leave(LeaveRequest::default())).await;
        signal.close().await;
        result.map(|_| ())
    }

    async fn converse(&mut self, signal: &mut Signal) -> anyhow::Result<End> {
        let deadline = tokio::time::Instant::now() + JOIN_TIMEOUT;
        let mut ping = tokio::time::interval(PING_INTERVAL);
        let data_period = self.plan.data.map_or(3600.0, |data| 1.0 / data.rate.max(0.001));
        let mut data = tokio::time::interval(Duration::from_secs_f64(data_period));
        data.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut stop, mut speaker) = (self.shared.stop.clone(), self.shared.speaker.clone());
        let (mut storm, mut count) = (self.shared.storm.clone(), self.shared.count.clone());
        let (mut subscribe, mut unmute) =
            (self.shared.subscribe.clone(), self.shared.unmute.clone());
        loop {
            tokio::select! {
                () = until(&mut stop) => return Ok(End::Stopped),
                () = until(&mut storm), if self.may_drop && self.joined => {
                    self.may_drop = false;
                    return Ok(End::SignalLost);
                }
                Ok(()) = count.changed() => self.note(),
                () = until(&mut subscribe), if !self.deferred.is_empty() => {
                    let participants = std::mem::take(&mut self.deferred);
                    self.watch(signal, &participants).await?;
                }
                () = until(&mut unmute), if !self.unmuted && self.joined => {
                    self.unmuted = true;
                    self.unmute(signal).await?;
                }
                response = signal.next() => match response? {
                    Some(response) => self.on_response(signal, response).await?,
                    None => bail!("the server closed signalling"),
                },
                Some((target, event)) = self.events.recv() => self.on_event(target, event)?,
                _ = ping.tick() => {
                    signal.send(Request::PingReq(Ping { timestamp: 0, rtt: 0 })).await?;
                }
                _ = data.tick(), if self.joined && self.plan.data.is_some() => self.send_data(),
                Ok(()) = speaker.changed() => {
                    speaker.mark_unchanged();
                    self.tell_who_speaks();
                }
                () = tokio::time::sleep_until(deadline), if !self.joined => {
                    bail!("not connected {} s after the start", JOIN_TIMEOUT.as_secs());
                }
            }
        }
    }

    /// Says whom it sees.
    fn note(&self) {
        let (identity, sid) = (self.plan.identity.clone(), self.sid.clone());
        let note = Note { identity, sid, roster: self.roster.clone() };
        self.shared.census.note(&self.plan.room, note);
    }

    async fn on_response(&mut self, signal: &mut Signal, response: Response) -> anyhow::Result<()> {
        match response {
            Response::Join(join) => self.on_join(signal, &join).await,
            Response::Offer(offer) => self.on_offer(signal, &offer).await,
            Response::Answer(answer) => self.on_answer(&answer),
            Response::Trickle(trickle) => self.on_trickle(&trickle),
            Response::TrackPublished(published) => {
                let sid = published.track.context("track_published without a track")?.sid;
                self.published.insert(published.cid, sid);
                if self.published.len() == self.offered.len() {
                    self.send_offer(signal).await?;
                }
                Ok(())
            }
            Response::Update(update) => {
                self.roster.update(&update.participants);
                self.watch(signal, &update.participants).await
            }
            Response::Reconnect(_) => {
                self.shared.outcomes.resumed();
                Ok(())
            }
            Response::SubscribedQualityUpdate(update) => {
                self.on_qualities(&update);
                Ok(())
            }
            Response::Leave(leave) => bail!("told to leave: {:?}", leave.reason()),
            Response::RequestResponse(response)
                if response.reason() != request_response::Reason::Ok =>
            {
                bail!("a request was refused: {:?} {}", response.reason(), response.message)
            }
            Response::SubscriptionResponse(response) => {
                bail!("a subscription failed: {:?}", response.err())
            }
            _ => Ok(()),
        }
    }

    async fn on_join(&mut self, signal: &mut Signal, join: &JoinResponse) -> anyhow::Result<()> {
        self.subscriber_primary = join.subscriber_primary;
        self.sid = join.participant.as_ref().map(|own| own.sid.clone()).unwrap_or_default();
        self.roster.replace(&join.other_participants);
        for request in self.track_requests() {
            signal.send(Request::AddTrack(request)).await?;
        }
        if self.offered.is_empty() && (self.plan.data.is_some() || !self.subscriber_primary) {
            self.send_offer(signal).await?;
        }
        self.watch(signal, &join.other_participants).await
    }
}

/// Waits for the signal; also over when nobody is left to give it.
async fn until(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

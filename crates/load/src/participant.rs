//! One participant: joins over signalling, negotiates its two peer connections (LiveKit's v0),
//! publishes, chooses what to watch, and leaves when told. Media runs on a [`Worker`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_proto::{
    AddTrackRequest, JoinResponse, LeaveRequest, MuteTrackRequest, ParticipantInfo, Ping,
    SessionDescription, SignalTarget, SubscribedQualityUpdate, TrackInfo, TrackSource, TrackType,
    TrickleRequest, UpdateSubscription, UpdateTrackSettings, VideoLayer, VideoQuality,
    request_response,
};
use sluice_rtp::{Codec, ExtensionKind, MediaKind};
use sluice_transport::sdp::{RemoteCandidate, parse_candidate_init};
use sluice_transport::{DtlsIdentity, TransportProto};
use tokio::sync::{mpsc, watch};

use crate::connection::{ConnectionEvent, ConnectionParams};
use crate::drops::Ports;
use crate::encoder::StreamIds;
use crate::outcome::Outcomes;
use crate::packet::ExtensionIds;
use crate::plan::{Options, ParticipantPlan};
use crate::publish::TrackSpec;
use crate::receive::{ExpectedTrack, ReceiveOptions};
use crate::roster::{Census, Note, Roster};
use crate::sdp::{
    Description, Kind, OPUS_PT, OfferedTrack, RIDS, Section, VP8_PT, VP8_RTX_PT, answer, offer,
};
use crate::side::Side;
use crate::signal::Signal;
use crate::worker::{Command, ConnectionId, Worker};

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

    fn subscriber_id(&self) -> ConnectionId {
        2 * self.index
    }

    fn publisher_id(&self) -> ConnectionId {
        2 * self.index + 1
    }

    fn worker(&self) -> &Worker {
        &self.shared.workers[self.index % self.shared.workers.len()]
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

    async fn unmute(&self, signal: &mut Signal) -> anyhow::Result<()> {
        for sid in self.published.values() {
            let request = MuteTrackRequest { sid: sid.clone(), muted: false };
            signal.send(Request::Mute(request)).await?;
        }
        self.worker().send(Command::Unmute(self.publisher_id()));
        Ok(())
    }

    fn tell_who_speaks(&self) {
        let speaker = *self.shared.speaker.borrow();
        let speaks = speaker.is_none_or(|index| index == self.plan.index_in_room);
        self.worker().send(Command::SetSpeaking(self.publisher_id(), speaks));
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

    /// Chooses numbers for our tracks, and asks to publish them.
    fn track_requests(&mut self) -> Vec<AddTrackRequest> {
        let mut requests = Vec::new();
        let stream = format!("stream-{}", self.plan.identity);
        if self.plan.audio {
            let cid = format!("audio-{:08x}", rand::random::<u32>());
            requests.push(AddTrackRequest {
                cid: cid.clone(),
                name: "microphone".into(),
                r#type: TrackType::Audio.into(),
                source: TrackSource::Microphone.into(),
                disable_red: true,
                muted: self.plan.muted,
                stream: stream.clone(),
                ..AddTrackRequest::default()
            });
            let ssrcs = vec![(rand::random(), None)];
            self.offered.push(OfferedTrack { video: false, stream: stream.clone(), cid, ssrcs });
        }
        if let Some(layers) = &self.plan.video {
            let cid = format!("video-{:08x}", rand::random::<u32>());
            let top = layers.last().map_or((0, 0), |layer| (layer.width, layer.height));
            let qualities = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];
            // A single layer is the highest quality there is.
            let skip = qualities.len().saturating_sub(layers.len());
            let described = layers.iter().zip(&qualities[skip..]).enumerate();
            requests.push(AddTrackRequest {
                cid: cid.clone(),
                name: "camera".into(),
                r#type: TrackType::Video.into(),
                source: TrackSource::Camera.into(),
                muted: self.plan.muted,
                width: top.0.into(),
                height: top.1.into(),
                stream: stream.clone(),
                layers: described
                    .map(|(at, (layer, quality))| VideoLayer {
                        quality: (*quality).into(),
                        width: layer.width.into(),
                        height: layer.height.into(),
                        bitrate: layer.bitrate_bps,
                        spatial_layer: at as i32,
                        rid: if layers.len() > 1 { RIDS[at].to_owned() } else { String::new() },
                        ..VideoLayer::default()
                    })
                    .collect(),
                ..AddTrackRequest::default()
            });
            let ssrcs = layers.iter().map(|_| (rand::random(), Some(rand::random()))).collect();
            self.offered.push(OfferedTrack { video: true, stream, cid, ssrcs });
        }
        requests
    }

    async fn send_offer(&mut self, signal: &mut Signal) -> anyhow::Result<()> {
        let local = self.publisher.prepare(&self.shared)?.clone();
        let sdp = offer(&self.offered, self.plan.data.is_some(), &local);
        self.offer_id += 1;
        let (r#type, id) = ("offer".to_owned(), self.offer_id);
        let offer = SessionDescription { r#type, sdp, id, ..SessionDescription::default() };
        signal.send(Request::Offer(offer)).await
    }

    fn on_answer(&mut self, answer: &SessionDescription) -> anyhow::Result<()> {
        let answer = Description::parse(&answer.sdp).context("the server's answer")?;
        // We offered, so we control.
        self.start(SignalTarget::Publisher, &answer, true);
        for (track, section) in self.offered.iter().zip(&answer.sections) {
            if section.rejected {
                bail!("the server rejected the section of {}", track.cid);
            }
            let Some(sid) = self.published.get(&track.cid) else { continue };
            let command = Command::Publish(self.publisher_id(), self.track(track, section, sid));
            self.worker().send(command);
        }
        self.tell_who_speaks();
        Ok(())
    }

    fn track(&self, track: &OfferedTrack, section: &Section, sid: &str) -> TrackSpec {
        let layers = self.plan.video.iter().flatten();
        let layers: Vec<_> =
            if track.video { layers.map(|layer| Some(*layer)).collect() } else { vec![None] };
        let payload_type = if track.video {
            section.payload_type("vp8").unwrap_or(VP8_PT)
        } else {
            section.payload_type("opus").unwrap_or(OPUS_PT)
        };
        let repair = section.payload_type("rtx").map(|_| VP8_RTX_PT).filter(|_| track.video);
        let ids = track.ssrcs.iter().map(|(ssrc, repair_ssrc)| StreamIds {
            ssrc: *ssrc,
            repair_ssrc: repair_ssrc.unwrap_or_default(),
            payload_type,
            repair_payload_type: repair,
        });
        TrackSpec {
            sid: sid.to_owned(),
            mid: section.mid.clone(),
            muted: !self.unmuted,
            extensions: ExtensionIds::of(section),
            layers: ids.zip(layers).collect(),
        }
    }

    async fn on_offer(
        &mut self,
        signal: &mut Signal,
        offer: &SessionDescription,
    ) -> anyhow::Result<()> {
        let description = Description::parse(&offer.sdp).context("the server's offer")?;
        let local = self.subscriber.prepare(&self.shared)?.clone();
        let sdp = answer(&description, &local);
        let (r#type, id) = ("answer".to_owned(), offer.id);
        let reply = SessionDescription { r#type, sdp, id, ..SessionDescription::default() };
        signal.send(Request::Answer(reply)).await?;
        // The offerer controls, unless it is lite (RFC 8445 §6.1.1).
        self.start(SignalTarget::Subscriber, &description, description.ice_lite);
        let (options, tracks) = self.expected(&description);
        self.worker().send(Command::Expect(self.subscriber_id(), options, tracks));
        Ok(())
    }

    fn expected(&self, offer: &Description) -> (ReceiveOptions, Vec<ExpectedTrack>) {
        let mut options = ReceiveOptions {
            sample_every: self.shared.options.sample_every,
            transport_cc: None,
            remb: false,
        };
        let mut tracks = Vec::new();
        for section in offer.sections.iter().filter(|s| s.sends && !s.rejected) {
            let kind = match section.kind {
                Kind::Audio => MediaKind::Audio,
                Kind::Video => MediaKind::Video,
                Kind::Application | Kind::Other => continue,
            };
            let (Some(&ssrc), Some(format)) = (section.ssrcs.first(), section.codec()) else {
                continue;
            };
            let transport_cc = section.extension(ExtensionKind::TransportCc);
            options.transport_cc = options.transport_cc.or(transport_cc);
            options.remb |= section.has_feedback("goog-remb") && transport_cc.is_none();
            let repair = section.repairs.iter().find(|(media, _)| *media == ssrc);
            let sid = section.msid.as_ref().map(|(_, track)| track.as_str()).unwrap_or_default();
            tracks.push(ExpectedTrack {
                ssrc,
                repair_ssrc: repair.map(|(_, repair)| *repair),
                codec: Codec::from_name(kind, &format.name),
                clock_rate: format.clock_rate,
                nack: section.has_feedback("nack"),
                wanted_at: self.wanted.get(sid).copied().unwrap_or(self.started),
            });
        }
        (options, tracks)
    }

    /// Starts a connection when its description arrives first.
    fn start(&mut self, target: SignalTarget, remote: &Description, controlling: bool) {
        let receives = target == SignalTarget::Subscriber;
        let id = if receives { self.subscriber_id() } else { self.publisher_id() };
        let side = if receives { &mut self.subscriber } else { &mut self.publisher };
        let (Some(local), Some(socket), false) = (&side.local, side.socket.take(), side.started)
        else {
            return;
        };
        side.started = true;
        let mut candidates = remote.candidates.clone();
        candidates.append(&mut side.early_candidates);
        self.shared.ports.note_server(candidates.iter().map(SocketAddr::port));
        let opens = self.plan.data.is_some() && !receives;
        let params = ConnectionParams {
            socket,
            local: local.ice.clone(),
            identity: self.shared.identity.clone(),
            remote: remote.remote.clone(),
            candidates,
            controlling,
            open_channels: if opens {
                sluice_transport::ChannelSpec::livekit()
            } else {
                Vec::new()
            },
            events: self.events_in.clone(),
            target,
        };
        self.worker().send(Command::Add(id, Box::new(params)));
    }

    fn on_trickle(&mut self, trickle: &TrickleRequest) -> anyhow::Result<()> {
        let parsed = parse_candidate_init(&trickle.candidate_init);
        let candidate = match parsed.ok().and_then(|trickled| trickled.candidate) {
            Some(RemoteCandidate::Address(c)) if c.proto == TransportProto::Udp => c.addr,
            _ => return Ok(()),
        };
        let is_subscriber = trickle.target() == SignalTarget::Subscriber;
        let id = if is_subscriber { self.subscriber_id() } else { self.publisher_id() };
        let side = if is_subscriber { &mut self.subscriber } else { &mut self.publisher };
        if side.started {
            self.worker().send(Command::AddCandidates(id, vec![candidate]));
        } else {
            side.early_candidates.push(candidate);
        }
        Ok(())
    }

    fn on_event(&mut self, target: SignalTarget, event: ConnectionEvent) -> anyhow::Result<()> {
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

    /// Subscribes to what the layout shows.
    async fn watch(
        &mut self,
        signal: &mut Signal,
        participants: &[ParticipantInfo],
    ) -> anyhow::Result<()> {
        if !self.plan.subscribes {
            return Ok(());
        }
        if !*self.shared.subscribe.borrow() {
            self.deferred.extend_from_slice(participants);
            return Ok(());
        }
        let (mut sids, mut settings) = (Vec::new(), Vec::new());
        let tracks =
            participants.iter().flat_map(|info| info.tracks.iter().map(move |t| (info, t)));
        for (info, track) in tracks {
            if info.identity == self.plan.identity || self.wanted.contains_key(&track.sid) {
                continue;
            }
            let tile = self.tile(info, track);
            if track.r#type() == TrackType::Video && tile.is_none() {
                continue;
            }
            self.wanted.insert(track.sid.clone(), self.wanted_since());
            sids.push(track.sid.clone());
            settings.extend(tile.map(|(width, height)| UpdateTrackSettings {
                track_sids: vec![track.sid.clone()],
                width,
                height,
                ..UpdateTrackSettings::default()
            }));
        }
        if sids.is_empty() || self.plan.auto_subscribe() {
            return Ok(());
        }
        for settings in settings {
            signal.send(Request::TrackSetting(settings)).await?;
        }
        let update = UpdateSubscription { track_sids: sids, subscribe: true, ..Default::default() };
        signal.send(Request::Subscription(update)).await
    }

    /// Size of the tile of a video track, if it has one; remembers who is shown.
    fn tile(&mut self, info: &ParticipantInfo, track: &TrackInfo) -> Option<(u32, u32)> {
        if track.r#type() != TrackType::Video {
            return None;
        }
        let tile = self.plan.layout.tile(self.watched_videos.len())?;
        self.watched_videos.insert(info.identity.clone(), track.sid.clone());
        Some(tile)
    }

    /// Tracks that are there when we join are wanted since the beginning.
    fn wanted_since(&self) -> Instant {
        if self.joined { Instant::now() } else { self.started }
    }

    fn on_qualities(&self, update: &SubscribedQualityUpdate) {
        let mut enabled = [true; 3];
        let listed = update.subscribed_codecs.iter().flat_map(|codec| &codec.qualities);
        for quality in listed.chain(&update.subscribed_qualities) {
            if let Some(layer) = enabled.get_mut(quality.quality as usize) {
                *layer = quality.enabled;
            }
        }
        // One layer serves every quality.
        if self.plan.video.as_ref().is_some_and(|layers| layers.len() == 1) {
            enabled = [enabled.contains(&true); 3];
        }
        let (id, sid) = (self.publisher_id(), update.track_sid.clone());
        self.worker().send(Command::SetLayers { id, sid, enabled });
    }

    fn send_data(&self) {
        let Some(data) = self.plan.data else { return };
        let message = crate::data::message(data.bytes, data.reliable);
        let (id, reliable) = (self.publisher_id(), data.reliable);
        self.worker().send(Command::SendData { id, reliable, data: Bytes::from(message) });
    }
}

/// Waits for the signal; also over when nobody is left to give it.
async fn until(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

//! Requests of clients: one place that says what each leads to.

use std::time::Instant;

use sluice_engine::api::Command;
use sluice_proto as proto;
use sluice_proto::request_response::{Reason, Request};
use sluice_proto::signal_request::Message;
use sluice_proto::simulate_scenario::Scenario;
use sluice_proto::{AudioTrackFeature, DisconnectReason};
use sluice_transport::sdp::parse_candidate_init;

use crate::join::attributes_size;
use crate::lifecycle::Departure;
use crate::outputs::SessionId;
use crate::participant::ParticipantKey;
use crate::resume::ResumeSimulation;
use crate::room::Room;
use crate::track::next_version;

/// Changes of a participant's own or, through the API, anybody's description.
pub(crate) struct Edit<'a> {
    pub(crate) name: &'a str,
    pub(crate) metadata: &'a str,
    pub(crate) attributes: &'a std::collections::BTreeMap<String, String>,
}

impl Room {
    /// Handles one message of a client. Messages of sessions that are over are ignored.
    pub fn handle_signal(
        &mut self,
        now: Instant,
        session: SessionId,
        request: proto::SignalRequest,
    ) {
        let Some(&key) = self.sessions.get(&session) else { return };
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if participant.session != Some(session) {
            return;
        }
        participant.last_signal = now;
        let Some(message) = request.message else { return };
        match message {
            Message::Offer(offer) => self.handle_offer(now, key, &offer),
            Message::Answer(answer) => self.handle_answer(now, key, &answer),
            Message::Trickle(trickle) => self.trickle(key, trickle),
            Message::AddTrack(request) => self.add_track(now, key, request),
            Message::Mute(mute) => self.mute_own(now, key, mute),
            Message::Subscription(update) => self.update_subscription(now, key, &update),
            Message::TrackSetting(update) => self.update_track_settings(now, key, &update),
            Message::Leave(leave) => self.client_leaves(now, key, &leave),
            Message::SubscriptionPermission(permission) => {
                self.update_subscription_permission(now, key, permission);
            }
            Message::SyncState(state) => self.sync_state(now, key, &state),
            Message::Simulate(scenario) => self.simulate(now, key, &scenario),
            Message::UpdateMetadata(update) => self.update_own_metadata(now, key, update),
            Message::UpdateAudioTrack(update) => self.update_audio_track(now, key, update),
            Message::UpdateVideoTrack(update) => self.update_video_track(now, key, update),
            Message::PublishDataTrackRequest(request) => {
                self.publish_data_track(now, key, request);
            }
            Message::UnpublishDataTrackRequest(request) => {
                self.unpublish_data_track(now, key, request);
            }
            Message::UpdateDataSubscription(update) => self.update_data_subscription(key, &update),
            Message::StoreDataBlobRequest(request) => self.store_data_blob(key, request),
            Message::GetDataBlobRequest(request) => self.get_data_blob(key, &request),
            // Pings are answered where the socket is; layers are told by `track_setting` and SDP.
            Message::Ping(_) | Message::PingReq(_) | Message::UpdateLayers(_) => {}
        }
    }

    /// We are ICE-lite and learn addresses from authenticated checks; the message is only checked.
    fn trickle(&mut self, key: ParticipantKey, trickle: proto::TrickleRequest) {
        if let Err(error) = parse_candidate_init(&trickle.candidate_init) {
            let message = error.to_string();
            let request = Request::Trickle(trickle);
            self.refuse(key, 0, Reason::UnclassifiedError, &message, request);
        }
    }

    fn client_leaves(&mut self, now: Instant, key: ParticipantKey, leave: &proto::LeaveRequest) {
        let reason = match leave.reason() {
            reason @ (DisconnectReason::UserUnavailable
            | DisconnectReason::UserRejected
            | DisconnectReason::AgentError) => reason,
            _ => DisconnectReason::ClientInitiated,
        };
        self.depart(now, key, Departure::Client(reason));
    }

    fn mute_own(&mut self, now: Instant, key: ParticipantKey, mute: proto::MuteTrackRequest) {
        if !self.set_muted(now, key, &mute.sid, mute.muted) {
            let request = Request::Mute(mute);
            self.refuse(key, 0, Reason::NotFound, "track is not found", request);
        }
    }

    /// Mutes or unmutes a published or announced track. False when there is none.
    pub(crate) fn set_muted(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        sid: &str,
        muted: bool,
    ) -> bool {
        let unix_micros = self.unix_micros(now);
        let Some(info) = self.own_track_info(key, sid) else { return false };
        if std::mem::replace(&mut info.muted, muted) == muted {
            return true;
        }
        info_changed(info, unix_micros);
        let Some(&id) = self.track_sids.get(sid) else { return true };
        self.mute_streams(id, muted);
        self.expect_media(now, id);
        self.participant_changed(now, key, true);
        self.update_dynacast(now, id);
        true
    }

    fn update_audio_track(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        update: proto::UpdateLocalAudioTrack,
    ) {
        let unix_micros = self.unix_micros(now);
        let Some(info) = self.own_track_info(key, &update.track_sid) else {
            let request = Request::UpdateAudioTrack(update);
            return self.refuse(key, 0, Reason::NotFound, "track is not found", request);
        };
        let mut features = Vec::new();
        for feature in update.features {
            if !features.contains(&feature) {
                features.push(feature);
            }
        }
        info.stereo = features.contains(&AudioTrackFeature::TfStereo.into());
        info.disable_dtx = features.contains(&AudioTrackFeature::TfNoDtx.into());
        info.audio_features = features;
        info_changed(info, unix_micros);
        self.participant_changed(now, key, true);
    }

    fn update_video_track(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        update: proto::UpdateLocalVideoTrack,
    ) {
        let unix_micros = self.unix_micros(now);
        let Some(info) = self.own_track_info(key, &update.track_sid) else {
            let request = Request::UpdateVideoTrack(update);
            return self.refuse(key, 0, Reason::NotFound, "track is not found", request);
        };
        info.width = update.width;
        info.height = update.height;
        info_changed(info, unix_micros);
        self.participant_changed(now, key, true);
        if let Some(&id) = self.track_sids.get(update.track_sid.as_str()) {
            self.reapply_settings(now, id);
        }
    }

    fn update_own_metadata(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        update: proto::UpdateParticipantMetadata,
    ) {
        let Some(participant) = self.participants.get(&key) else { return };
        let edit =
            Edit { name: &update.name, metadata: &update.metadata, attributes: &update.attributes };
        let result = if participant.grants.can_update_own_metadata() {
            self.edit(now, key, &edit).map_err(|message| (Reason::LimitExceeded, message))
        } else {
            Err((Reason::NotAllowed, "does not have permission to update own metadata"))
        };
        let (reason, message) = result.err().unwrap_or((Reason::Ok, ""));
        let request_id = update.request_id;
        self.refuse(key, request_id, reason, message, Request::UpdateMetadata(update));
    }

    /// Applies an edit: empty name and metadata mean no change, an empty attribute is removed.
    ///
    /// # Errors
    /// Names the limit that the result would exceed; nothing has changed then.
    pub(crate) fn edit(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        edit: &Edit<'_>,
    ) -> Result<(), &'static str> {
        let limits = &self.config.limits;
        let Some(participant) = self.participants.get_mut(&key) else { return Ok(()) };
        let mut attributes = participant.attributes.clone();
        for (name, value) in edit.attributes {
            if value.is_empty() {
                attributes.remove(name);
            } else {
                attributes.insert(name.clone(), value.clone());
            }
        }
        if edit.name.len() > limits.max_participant_name_length {
            return Err("name exceeds the limit");
        }
        if edit.metadata.len() > limits.max_metadata_size {
            return Err("metadata exceeds the limit");
        }
        if attributes_size(&attributes) > limits.max_attributes_size {
            return Err("attributes exceed the limit");
        }
        let mut changed = false;
        let mut replace = |current: &mut String, new: &str| {
            if !new.is_empty() && current != new {
                new.clone_into(current);
                changed = true;
            }
        };
        replace(&mut participant.name, edit.name);
        replace(&mut participant.metadata, edit.metadata);
        changed |= participant.attributes != attributes;
        let was_low_power = participant.is_low_power();
        participant.attributes = attributes;
        if !changed {
            return Ok(());
        }
        if participant.is_low_power() != was_low_power {
            self.reapply_own_wishes(now, key);
        }
        self.participant_edited(now, key);
        self.refresh_token(now, key);
        Ok(())
    }

    fn simulate(&mut self, now: Instant, key: ParticipantKey, scenario: &proto::SimulateScenario) {
        let Some(scenario) = scenario.scenario else { return };
        match scenario {
            Scenario::SpeakerUpdate(seconds) => self.simulate_speech(now, key, seconds),
            Scenario::NodeFailure(_) => self.depart(now, key, Departure::SimulatedNodeFailure),
            Scenario::Migration(_) => {
                self.depart(now, key, Departure::Restart(DisconnectReason::Migration));
            }
            Scenario::ServerLeave(_) => {
                self.depart(now, key, Departure::Server(DisconnectReason::ServerShutdown));
            }
            Scenario::LeaveRequestFullReconnect(_) => {
                self.depart(now, key, Departure::Restart(DisconnectReason::UnknownReason));
            }
            Scenario::DisconnectSignalOnResume(_) => {
                self.simulate_on_resume(key, ResumeSimulation::AfterReconnect);
            }
            Scenario::DisconnectSignalOnResumeNoMessages(_) => {
                self.simulate_on_resume(key, ResumeSimulation::BeforeMessages);
            }
            Scenario::SwitchCandidateProtocol(protocol) => {
                self.switch_candidate_protocol(now, key, protocol);
            }
            Scenario::SubscriberBandwidth(bps) => {
                let Some(participant) = self.participants.get(&key) else { return };
                let (peer, max_bps) = (participant.data_peer(), u64::try_from(bps).ok());
                let max_bps = max_bps.filter(|bps| *bps > 0);
                self.out.engine(Command::LimitBandwidth { peer, max_bps });
            }
        }
    }

    fn simulate_on_resume(&mut self, key: ParticipantKey, simulation: ResumeSimulation) {
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.resume_simulation = Some(simulation);
        }
    }
}

pub(crate) fn info_changed(info: &mut proto::TrackInfo, unix_micros: i64) {
    info.version = Some(next_version(info.version, unix_micros));
}

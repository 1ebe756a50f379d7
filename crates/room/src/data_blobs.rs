//! Data blobs: bytes that a participant keeps here for others to fetch by its identity and a key
//! (`enable_participant_data_blob`, off by default). They end with their participant.

use std::collections::HashMap;

use prost::Message;
use sluice_proto as proto;
use sluice_proto::data_blob_key::Key;
use sluice_proto::data_track_schema_encoding::Value;
use sluice_proto::request_response::Reason;
use sluice_proto::signal_response::Message as Response;

use crate::params::Limits;
use crate::participant::ParticipantKey;
use crate::room::Room;

/// Blobs of one participant by encoded key.
#[derive(Debug, Default)]
pub(crate) struct DataBlobs(HashMap<Vec<u8>, proto::DataBlob>);

/// Why a request is not granted, and the words for it.
type Refusal = (Reason, &'static str);

const NOT_ENABLED: Refusal = (Reason::NotAllowed, "data blob not enabled");

impl DataBlobs {
    fn store(&mut self, blob: proto::DataBlob, limits: &Limits) -> Result<(), Refusal> {
        const INVALID: Refusal = (Reason::InvalidRequest, "data blob is invalid");
        let key = blob.key.as_ref().filter(|key| is_named(key)).ok_or(INVALID)?;
        if !has_good_encoding(key, limits) {
            let message = "encoding identifier is empty or exceeds the maximum length";
            return Err((Reason::InvalidRequest, message));
        }
        let encoded = key.encode_to_vec();
        if exceeds(encoded.len(), limits.max_data_blob_key_length) {
            return Err(INVALID);
        }
        if blob.contents.is_empty() {
            return Err((Reason::InvalidRequest, "data blob is empty"));
        }
        let others = self.0.iter().filter(|(key, _)| **key != encoded);
        let size: usize = others.map(|(key, blob)| key.len() + blob.contents.len()).sum();
        if exceeds(size + encoded.len() + blob.contents.len(), limits.max_data_blobs_size) {
            return Err((Reason::LimitExceeded, "data blobs exceed the limit"));
        }
        self.0.insert(encoded, blob);
        Ok(())
    }

    fn get(&self, key: &proto::DataBlobKey) -> Option<&proto::DataBlob> {
        self.0.get(&key.encode_to_vec())
    }
}

fn is_named(key: &proto::DataBlobKey) -> bool {
    match &key.key {
        Some(Key::Generic(name)) => !name.is_empty(),
        Some(Key::SchemaId(schema)) => !schema.name.is_empty(),
        None => false,
    }
}

fn has_good_encoding(key: &proto::DataBlobKey, limits: &Limits) -> bool {
    let Some(Key::SchemaId(schema)) = &key.key else { return true };
    is_good_schema(schema, limits)
}

/// Whether a schema's own encoding, if it names one, is within the limit.
pub(crate) fn is_good_schema(schema: &proto::DataTrackSchemaId, limits: &Limits) -> bool {
    match schema.encoding.as_ref().and_then(|encoding| encoding.value.as_ref()) {
        Some(Value::Custom(name)) => {
            !name.is_empty() && !exceeds(name.len(), limits.max_data_track_custom_encoding_length)
        }
        Some(Value::WellKnown(_)) | None => true,
    }
}

/// A limit of 0 is no limit.
pub(crate) fn exceeds(size: usize, limit: usize) -> bool {
    limit > 0 && size > limit
}

impl Room {
    /// `StoreDataBlobRequest`.
    pub(crate) fn store_data_blob(
        &mut self,
        key: ParticipantKey,
        request: proto::StoreDataBlobRequest,
    ) {
        let request_id = request.request_id;
        let blob = request.blob.unwrap_or_default();
        let blob_key = blob.key.clone();
        let config = self.config.clone();
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let stored = match config.enable_participant_data_blob {
            true => participant.data_blobs.store(blob, &config.limits),
            false => Err(NOT_ENABLED),
        };
        match stored {
            Ok(()) => {
                let response = proto::StoreDataBlobResponse { request_id, key: blob_key };
                self.send(key, Response::StoreDataBlobResponse(response));
            }
            Err(refusal) => self.refuse_data_blob(key, request_id, refusal),
        }
    }

    /// `GetDataBlobRequest`.
    pub(crate) fn get_data_blob(
        &mut self,
        key: ParticipantKey,
        request: &proto::GetDataBlobRequest,
    ) {
        let request_id = request.request_id;
        match self.find_data_blob(request) {
            Ok(blob) => {
                let response = proto::GetDataBlobResponse { request_id, blob: Some(blob) };
                self.send(key, Response::GetDataBlobResponse(response));
            }
            Err(refusal) => self.refuse_data_blob(key, request_id, refusal),
        }
    }

    fn find_data_blob(
        &self,
        request: &proto::GetDataBlobRequest,
    ) -> Result<proto::DataBlob, Refusal> {
        if !self.config.enable_participant_data_blob {
            return Err(NOT_ENABLED);
        }
        let key = request.key.as_ref();
        let key = key.ok_or((Reason::InvalidRequest, "data blob key is required"))?;
        let owner = self.identities.get(request.participant_identity.as_str());
        let owner = owner.and_then(|owner| self.participants.get(owner));
        let owner = owner.filter(|owner| !owner.is_hidden());
        let owner = owner.ok_or((Reason::NotFound, "participant not found"))?;
        owner.data_blobs.get(key).cloned().ok_or((Reason::NotFound, "data blob not found"))
    }

    fn refuse_data_blob(
        &mut self,
        key: ParticipantKey,
        request_id: u32,
        (reason, message): Refusal,
    ) {
        let Some(participant) = self.participants.get(&key) else { return };
        if !participant.client.knows_request_response() {
            return;
        }
        let response = proto::RequestResponse {
            request_id,
            reason: reason.into(),
            message: message.into(),
            request: None,
        };
        self.send(key, Response::RequestResponse(response));
    }
}

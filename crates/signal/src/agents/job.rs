//! Jobs: what they are for and how far they have come.

use std::collections::BTreeSet;
use std::time::Instant;

use sluice_proto::{self as proto, JobStatus};

use super::hub::WorkerId;
use super::worker::WorkerKey;

/// What one job of a dispatch is for; there is at most one job for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) job_type: i32,
    pub(super) namespace: String,
    /// SID of the participant, empty for the whole room.
    pub(super) participant: String,
}

/// Where a job belongs.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) room_sid: String,
    pub(super) dispatch: String,
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// No worker can take it now.
    Waiting,
    /// A worker was asked.
    Offered { worker: WorkerId, until: Instant },
    /// A worker has it.
    Running { worker: WorkerId },
    /// Its worker is gone, which may still come back and claim it.
    Orphaned { until: Instant },
    /// Its agent left the room. When its worker is gone as well, both died together.
    Left { worker: WorkerId, until: Instant },
    /// Over.
    Ended,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) info: proto::Job,
    /// `None`: a worker asked for it, to try something.
    pub(super) home: Option<Home>,
    pub(super) stage: Stage,
    /// SID of its agent while that is in the room, empty otherwise.
    pub(super) agent_sid: String,
    /// Workers that declined, did not answer, or failed at it.
    pub(super) excluded: BTreeSet<WorkerId>,
    /// How often it was given to another worker.
    pub(super) restarts: u32,
    pub(super) may_restart: bool,
}

impl Job {
    pub(super) fn key(&self) -> WorkerKey {
        WorkerKey {
            agent_name: self.info.agent_name.clone(),
            namespace: self.info.namespace.clone(),
            job_type: self.info.r#type,
            deployment: self.info.deployment.clone(),
        }
    }

    pub(super) fn worker(&self) -> Option<WorkerId> {
        match self.stage {
            Stage::Offered { worker, .. }
            | Stage::Running { worker }
            | Stage::Left { worker, .. } => Some(worker),
            _ => None,
        }
    }

    pub(super) fn state(&mut self) -> &mut proto::JobState {
        self.info.state.get_or_insert_default()
    }

    /// Identity of the agent in the room; empty before a worker took the job.
    pub(super) fn agent(&self) -> &str {
        self.info.state.as_ref().map_or("", |state| &state.participant_identity)
    }

    /// Whether a worker ever had it: before that the API does not show it.
    pub(super) fn was_assigned(&self) -> bool {
        !self.agent().is_empty()
    }

    /// Sets status and times; `nanos` is Unix time.
    pub(super) fn set_status(&mut self, status: JobStatus, error: &str, nanos: i64) {
        let state = self.state();
        state.status = status.into();
        error.clone_into(&mut state.error);
        state.updated_at = nanos;
        match status {
            JobStatus::JsRunning if state.started_at == 0 => state.started_at = nanos,
            JobStatus::JsSuccess | JobStatus::JsFailed => state.ended_at = nanos,
            _ => {}
        }
    }
}

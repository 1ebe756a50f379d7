//! One registered worker, and the choice among several.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::StdRng;
use sluice_proto::{self as proto, JobType, WorkerStatus};

use super::hub::WorkerId;
use crate::token::VideoGrant;

/// Load that a job is assumed to bring until the worker reports its load again: workers report
/// every few seconds, and a burst of jobs must not all go to whoever was idle before it.
const ASSUMED_JOB_LOAD: f32 = 0.05;

/// Which jobs a worker takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WorkerKey {
    pub(super) agent_name: String,
    pub(super) namespace: String,
    pub(super) job_type: i32,
    pub(super) deployment: String,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    /// `AW_…`.
    pub(super) name: String,
    pub(super) key: WorkerKey,
    /// Signs the tokens of this worker's jobs.
    pub(super) api_key: String,
    permissions: proto::ParticipantPermission,
    available: bool,
    load: f32,
    /// Jobs given since the last report of load.
    unreported: u32,
}

impl Worker {
    pub(super) fn new(
        id: WorkerId,
        name: String,
        api_key: String,
        request: proto::RegisterWorkerRequest,
    ) -> Self {
        let permissions =
            request.allowed_permissions.clone().unwrap_or_else(|| proto::ParticipantPermission {
                can_subscribe: true,
                can_publish: true,
                can_publish_data: true,
                can_update_metadata: true,
                ..proto::ParticipantPermission::default()
            });
        let key = WorkerKey {
            namespace: request.namespace().to_owned(),
            job_type: request.r#type,
            agent_name: request.agent_name,
            deployment: request.deployment,
        };
        Self { id, name, key, api_key, permissions, available: true, load: 0.0, unreported: 0 }
    }

    pub(super) fn job_type(&self) -> JobType {
        JobType::try_from(self.key.job_type).unwrap_or(JobType::JtRoom)
    }

    /// Takes over what the worker says of itself. True when it became available.
    pub(super) fn update(&mut self, update: &proto::UpdateWorkerStatus) -> bool {
        let before = self.available;
        if let Some(status) = update.status {
            self.available = status == i32::from(WorkerStatus::WsAvailable);
        }
        self.available &= !update.draining;
        self.load = if update.load.is_finite() { update.load.clamp(0.0, 1.0) } else { 1.0 };
        self.unreported = 0;
        self.available && !before
    }

    pub(super) fn job_given(&mut self) {
        self.unreported = self.unreported.saturating_add(1);
    }

    fn expected_load(&self) -> f32 {
        self.load + self.unreported as f32 * ASSUMED_JOB_LOAD
    }

    /// What the agent of a job may do in its room.
    pub(super) fn grant(&self, room: &str) -> VideoGrant {
        let allowed = &self.permissions;
        let sources = allowed.can_publish_sources();
        VideoGrant {
            room_join: true,
            agent: true,
            room: room.to_owned(),
            can_subscribe: Some(allowed.can_subscribe),
            can_publish: Some(allowed.can_publish),
            can_publish_data: Some(allowed.can_publish_data),
            can_publish_sources: sources.map(|s| s.as_str_name().to_ascii_lowercase()).collect(),
            can_update_own_metadata: Some(allowed.can_update_metadata),
            can_subscribe_metrics: Some(allowed.can_subscribe_metrics),
            hidden: allowed.hidden,
            ..VideoGrant::default()
        }
    }
}

/// Chooses a worker for a job: at random, the more likely the less loaded it is. Workers below
/// `target_load` come first; above it they still are better than nobody.
pub(super) fn choose<'a>(
    workers: impl Iterator<Item = &'a Worker>,
    key: &WorkerKey,
    excluded: &BTreeSet<WorkerId>,
    target_load: f32,
    rng: &mut StdRng,
) -> Option<WorkerId> {
    let suitable = workers
        .filter(|worker| worker.available && worker.key == *key && !excluded.contains(&worker.id));
    let mut loads: Vec<(WorkerId, f32)> =
        suitable.map(|worker| (worker.id, worker.expected_load())).collect();
    if loads.iter().any(|(_, load)| *load < target_load) {
        loads.retain(|(_, load)| *load < target_load);
    }
    let weight = |load: f32| (1.0 - load).max(0.0);
    let total: f32 = loads.iter().map(|(_, load)| weight(*load)).sum();
    if total <= 0.0 {
        return None;
    }
    let mut point = rng.random_range(0.0..total);
    for (id, load) in &loads {
        point -= weight(*load);
        if point <= 0.0 {
            return Some(*id);
        }
    }
    // Rounding.
    loads.last().map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn worker(id: u64, load: f32) -> Worker {
        let mut worker =
            Worker::new(WorkerId(id), format!("AW_{id}"), "key".into(), Default::default());
        worker.update(&proto::UpdateWorkerStatus { load, ..Default::default() });
        worker
    }

    fn counts(workers: &[Worker], draws: usize) -> Vec<usize> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut counts = vec![0; workers.len()];
        for _ in 0..draws {
            let key = &workers[0].key;
            let excluded = BTreeSet::new();
            if let Some(id) = choose(workers.iter(), key, &excluded, 0.7, &mut rng) {
                counts[id.0 as usize] += 1;
            }
        }
        counts
    }

    #[test]
    fn idle_workers_are_likelier_and_loaded_ones_come_last() {
        let counts = counts(&[worker(0, 0.0), worker(1, 0.6), worker(2, 0.9)], 1000);
        assert!(counts[0] > 2 * counts[1] && counts[1] > 200, "{counts:?}");
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn a_loaded_worker_is_better_than_nobody_and_a_full_one_is_not() {
        assert_eq!(counts(&[worker(0, 0.95)], 10), [10]);
        assert_eq!(counts(&[worker(0, 1.0)], 10), [0]);
        let mut full = worker(0, 0.0);
        full.update(&proto::UpdateWorkerStatus {
            status: Some(WorkerStatus::WsFull.into()),
            ..Default::default()
        });
        assert_eq!(counts(&[full], 10), [0]);
    }

    #[test]
    fn jobs_count_before_the_worker_reports_them() {
        let mut busy = worker(0, 0.0);
        (0..14).for_each(|_| busy.job_given());
        assert_eq!(counts(&[busy, worker(1, 0.5)], 10), [0, 10]);
    }
}

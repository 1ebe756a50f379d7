//! Ten thousand groups of a hundred members, each with a call, followed within the request budget:
//! under virtual time, with a Turms that is only numbers. `TURMS_PRESENT` says how many members of
//! each group are in its call; with all of them the adapter asks for whole groups.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use sluice_tests::fake_rooms::FakeRooms;
use sluice_turms::admin::{
    BlockedUserRecord, Directory, GroupBlockRecord, GroupRecord, GroupUserKey, MemberRecord, Page,
    Posted, Priority, RelationshipRecord, SystemMessage, TurmsError, TurmsResult, UserRecord,
};
use sluice_turms::config::{AdminConfig, Secret};
use sluice_turms::ids::{GroupId, UserId};
use sluice_turms::{Adapter, AdapterParts, Clock, TurmsConfig, TurmsStats};
use tokio::sync::mpsc;
use tokio::time::Instant;

const GROUPS: i64 = 10_000;
const MEMBERS: i64 = 100;
/// Longest list of ids in one request; the adapter's own limit.
const MAX_LIST: usize = sluice_turms::admin::MAX_ID_LIST;
/// Members in each call.
const PRESENT: i64 = 5;
const PAGE: usize = 1000;
const RPS: u32 = 20;
/// Snowflake ids are this long in Turms.
const FIRST_GROUP: i64 = 1_500_000_000_000_000_000;

/// Group `g` has the members `g * 100 + 1 ..= g * 100 + 100`, of which some are muted.
struct Numbers {
    requests: AtomicU64,
    /// Requests by whole second of virtual time.
    by_second: Mutex<BTreeMap<u64, u64>>,
    looked_at: Mutex<HashSet<i64>>,
    began: Instant,
}

impl Numbers {
    /// Counts a request and answers after a realistic time.
    fn answer<'a, T: Send + 'a>(&'a self, data: T) -> BoxFuture<'a, TurmsResult<T>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let second = self.began.elapsed().as_secs();
        *self.by_second.lock().unwrap().entry(second).or_default() += 1;
        async move {
            tokio::time::sleep(Duration::from_millis(15)).await;
            Ok(data)
        }
        .boxed()
    }
}

/// The budget stands in front of Turms in production inside the client; here it is this wrapper's
/// part to hold requests back, with the same limit.
struct Budgeted {
    numbers: Numbers,
    next: Mutex<Instant>,
}

impl Budgeted {
    async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap();
            let at = (*next).max(Instant::now());
            *next = at + Duration::from_secs(1) / RPS;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

fn fits<T: ToString>(ids: &[T]) -> bool {
    ids.iter().map(|id| id.to_string().len() + 1).sum::<usize>() <= MAX_LIST
}

impl Directory for Budgeted {
    fn page_size(&self) -> usize {
        PAGE
    }

    fn is_cut_off(&self) -> bool {
        false
    }

    fn groups<'a>(
        &'a self,
        ids: &'a [GroupId],
        _priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<GroupRecord>>> {
        assert!(fits(ids));
        let records = ids.iter().map(|id| GroupRecord {
            id: id.get(),
            type_id: None,
            is_active: Some(true),
            deletion_date: None,
            mute_end_date: None,
        });
        let records = records.collect();
        async move {
            self.turn().await;
            self.numbers.answer(records).await
        }
        .boxed()
    }

    fn members<'a>(
        &'a self,
        groups: &'a [GroupId],
        users: &'a [UserId],
        _priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<MemberRecord>>> {
        assert!(fits(groups) && fits(users));
        async move {
            self.turn().await;
            let wanted: HashSet<i64> = users.iter().map(|user| user.get()).collect();
            let mut records = Vec::new();
            for group in groups {
                self.numbers.looked_at.lock().unwrap().insert(group.get());
                let first = (group.get() - FIRST_GROUP) * MEMBERS + 1;
                for user in first..first + MEMBERS {
                    if wanted.is_empty() || wanted.contains(&user) {
                        records.push(MemberRecord {
                            key: GroupUserKey { group_id: group.get(), user_id: user },
                            role: Some("MEMBER".into()),
                            mute_end_date: None,
                        });
                    }
                }
            }
            records.truncate(PAGE);
            self.numbers.answer(records).await
        }
        .boxed()
    }

    fn count_members(
        &self,
        _group: GroupId,
        _priority: Priority,
    ) -> BoxFuture<'_, TurmsResult<u64>> {
        self.numbers.answer(MEMBERS as u64)
    }

    fn count_groups(&self, _priority: Priority) -> BoxFuture<'_, TurmsResult<u64>> {
        self.numbers.answer(GROUPS as u64)
    }

    fn group_blocks<'a>(
        &'a self,
        groups: &'a [GroupId],
        _users: &'a [UserId],
        _priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<GroupBlockRecord>>> {
        assert!(fits(groups));
        async move {
            self.turn().await;
            self.numbers.answer(Vec::new()).await
        }
        .boxed()
    }

    fn blocked_users<'a>(
        &'a self,
        _users: &'a [UserId],
        _priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<BlockedUserRecord>>> {
        ready(Err(TurmsError::RateLimited)).boxed()
    }

    fn blocked_users_page(
        &self,
        _page: u32,
        _priority: Priority,
    ) -> BoxFuture<'_, TurmsResult<Page<BlockedUserRecord>>> {
        async move {
            self.turn().await;
            self.numbers.answer(Page::empty()).await
        }
        .boxed()
    }

    fn users<'a>(
        &'a self,
        _users: &'a [UserId],
        _priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<UserRecord>>> {
        ready(Err(TurmsError::RateLimited)).boxed()
    }

    fn relationship_blocks<'a>(
        &'a self,
        _users: &'a [UserId],
        _priority: Priority,
    ) -> BoxFuture<'a, TurmsResult<Vec<RelationshipRecord>>> {
        ready(Err(TurmsError::RateLimited)).boxed()
    }

    fn speakable_types(&self, _priority: Priority) -> BoxFuture<'_, TurmsResult<HashSet<i64>>> {
        ready(Ok(HashSet::new())).boxed()
    }

    fn post_message<'a>(
        &'a self,
        _message: &'a SystemMessage,
    ) -> BoxFuture<'a, TurmsResult<Posted>> {
        ready(Ok(Posted::Stored)).boxed()
    }
}

/// CPU time of this process, and its largest memory so far, bytes.
fn used() -> (Duration, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = peak
        .and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or_default();
    (Duration::from_millis((ticks(11) + ticks(12)) * 10), kib * 1024)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_groups_of_a_hundred_are_followed_within_the_budget() {
    let numbers = Numbers {
        requests: AtomicU64::new(0),
        by_second: Mutex::default(),
        looked_at: Mutex::default(),
        began: Instant::now(),
    };
    let directory = Arc::new(Budgeted { numbers, next: Mutex::new(Instant::now()) });
    let (rooms, mut happened) = FakeRooms::new();
    let present = std::env::var("TURMS_PRESENT").ok().and_then(|text| text.parse().ok());
    let present = present.unwrap_or(PRESENT).min(MEMBERS);
    for group in 0..GROUPS {
        let room = format!("turms:g:{}", FIRST_GROUP + group);
        for member in 1..=present {
            rooms.join(&room, &(group * MEMBERS + member).to_string());
        }
    }
    while happened.try_recv().is_ok() {}
    let before = used();
    let admin = AdminConfig::new("http://turms", "sfu", Secret::default());
    let parts = AdapterParts {
        config: TurmsConfig::new(AdminConfig { max_rps: RPS, ..admin }),
        rooms: Arc::new(rooms.clone()),
        directory: directory.clone(),
        clock: Clock::from(1_700_000_000_000),
        stats: Arc::new(TurmsStats::default()),
    };
    let stats = parts.stats.clone();
    let (_adapter, tasks) = Adapter::new(parts).expect("a good configuration");
    let (_events, receiver) = mpsc::channel(1);
    tokio::spawn(tasks.run(receiver));

    let began = Instant::now();
    while stats.polls.get() < GROUPS as u64 * 2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed() < Duration::from_secs(600), "{} looks", stats.polls.get());
    }
    let after = used();
    let seconds = began.elapsed().as_secs();
    let requests = directory.numbers.requests.load(Ordering::Relaxed);
    println!(
        "two rounds over {GROUPS} groups of {MEMBERS}, {present} in each call: {seconds} s of \
         virtual time, \
         {requests} requests, {:?} of CPU, {} MiB more memory, {} MiB in all",
        after.0 - before.0,
        (after.1 - before.1) >> 20,
        after.1 >> 20,
    );
    assert_eq!(directory.numbers.looked_at.lock().unwrap().len() as i64, GROUPS, "every group");
    let busiest = directory.numbers.by_second.lock().unwrap().values().copied().max();
    assert!(busiest.unwrap_or_default() <= u64::from(RPS) + 1, "{busiest:?} in a second");
    assert!(requests < GROUPS as u64 / 3 * 2, "groups share requests: {requests}");
    assert_eq!(stats.participants_removed.get() + stats.participants_muted.get(), 0);
}

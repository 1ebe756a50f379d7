//! Rooms follow Turms: every room of a group is looked at now and then, and at once when a notice
//! comes; what changed is done to its participants. One task does all of it, so that nothing is
//! done twice; requests to Turms run beside it, within the budget.

mod accounts;
mod act;
mod poll;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use rand::RngExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::accounts::{Accounts, Persons};
use self::poll::{Answer, Asker, Batch, Question};
use self::watch::{Present, Watch};
use crate::adapter::{Adapter, Subject};
use crate::admin::{Priority, TurmsError, TurmsResult};
use crate::ids::{GroupId, Target, UserId, user_of_identity};
use crate::rooms::{RoomEvent, RoomEventKind};

/// Between two looks at the list of rooms; events tell of new ones sooner.
const REFRESH_ROOMS: Duration = Duration::from_secs(2);

/// Between an answer that would remove many and the second look.
const SECOND_LOOK: Duration = Duration::from_millis(250);

/// How long after a join the room is looked at: joins come in crowds.
const AFTER_JOIN: Duration = Duration::from_secs(1);

/// Something that the synchronisation should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncMessage {
    /// Something about a group.
    Group(GroupId),
    /// A group was deleted.
    Deleted(GroupId),
    /// Something about a user.
    User(UserId),
    /// Something.
    Everything,
}

/// What came back from Turms.
enum Outcome {
    Rooms(Vec<Question>, TurmsResult<Vec<Answer>>),
    Accounts(TurmsResult<Accounts>),
}

/// See the module.
pub(crate) struct Sync {
    adapter: Arc<Adapter>,
    messages: mpsc::Receiver<SyncMessage>,
    watches: HashMap<String, Watch>,
    accounts: Accounts,
    accounts_due: Instant,
    accounts_polling: bool,
    /// A notice came while they were asked about: the answer may be too old.
    accounts_again: bool,
    rooms_due: Instant,
    polls: FuturesUnordered<BoxFuture<'static, Outcome>>,
}

impl Sync {
    pub(crate) fn new(adapter: Arc<Adapter>, messages: mpsc::Receiver<SyncMessage>) -> Self {
        let now = Instant::now();
        Self {
            adapter,
            messages,
            watches: HashMap::new(),
            accounts: Accounts::default(),
            accounts_due: now,
            accounts_polling: false,
            accounts_again: false,
            rooms_due: now,
            polls: FuturesUnordered::new(),
        }
    }

    /// Runs until there are no more events.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<RoomEvent>) {
        loop {
            let now = Instant::now();
            if now >= self.rooms_due {
                self.refresh_rooms(now);
            }
            self.start_polls(now).await;
            self.wake_up(now).await;
            self.adapter.notices().digests();
            let next = self.next_deadline(Instant::now());
            tokio::select! {
                Some(outcome) = self.polls.next(), if !self.polls.is_empty() => {
                    self.take(outcome).await;
                }
                event = events.recv() => match event {
                    Some(event) => self.room_event(&event),
                    None => return,
                },
                Some(message) = self.messages.recv() => self.told(message),
                () = sleep_until(next) => {}
            }
        }
    }

    fn room_event(&mut self, event: &RoomEvent) {
        let Some(target) = Target::from_room_name(&event.room) else { return };
        if let Some(group) = self.adapter.subject(target).group() {
            self.adapter.notices().room_event(group, event);
        }
        let now = Instant::now();
        match &event.kind {
            RoomEventKind::Finished => {
                self.watches.remove(&event.room);
            }
            RoomEventKind::Left(identity) => {
                if let Some(watch) = self.watches.get_mut(&event.room) {
                    watch.applied.remove(identity);
                }
            }
            RoomEventKind::Started | RoomEventKind::Joined(_) => {
                if let Some(watch) = self.watch(&event.room, now) {
                    // Who comes back may come with a token from before the last change.
                    if let RoomEventKind::Joined(identity) = &event.kind {
                        watch.applied.remove(identity);
                    }
                    watch.due = watch.due.min(now + AFTER_JOIN);
                    watch.again = watch.polling;
                }
            }
        }
        self.count_watches();
    }

    fn told(&mut self, message: SyncMessage) {
        let now = Instant::now();
        let adapter = self.adapter.clone();
        for watch in self.watches.values_mut() {
            let concerned = match message {
                SyncMessage::Group(group) | SyncMessage::Deleted(group) => {
                    adapter.subject(watch.target).group() == Some(group)
                }
                SyncMessage::User(user) => watch.has(user),
                SyncMessage::Everything => true,
            };
            if concerned && message == SyncMessage::Everything {
                // As soon as the budget allows, but nobody in particular waits.
                watch.due = now;
                watch.again = watch.polling;
            } else if concerned {
                watch.told_deleted = matches!(message, SyncMessage::Deleted(_));
                watch.look_now(now);
            }
        }
        if !matches!(message, SyncMessage::Group(_) | SyncMessage::Deleted(_)) {
            self.accounts_due = now;
            self.accounts_again = self.accounts_polling;
        }
    }

    /// The watch over a room; `None` for rooms that are not Turms' business.
    fn watch(&mut self, room: &str, now: Instant) -> Option<&mut Watch> {
        if !self.watches.contains_key(room) {
            let target = Target::from_room_name(room)?;
            self.watches.insert(room.to_owned(), Watch::new(target, now));
        }
        self.watches.get_mut(room)
    }

    fn refresh_rooms(&mut self, now: Instant) {
        self.rooms_due = now + REFRESH_ROOMS;
        let open: HashSet<String> = self.adapter.rooms().open_rooms().into_iter().collect();
        self.watches.retain(|room, _| open.contains(room));
        let interval = self.interval();
        for room in &open {
            if !self.watches.contains_key(room)
                && let Some(watch) = self.watch(room, now)
            {
                // Found, not opened just now: after a restart all of them are, so spread them.
                watch.due = now + interval.mul_f64(rand::rng().random_range(0.0..1.0));
            }
        }
        self.count_watches();
    }

    fn count_watches(&self) {
        let stats = self.adapter.stats();
        stats.watched_rooms.set(self.watches.len() as u64);
        let stale = self.watches.values().filter(|watch| watch.stale).count();
        stats.stale_rooms.set(stale as u64);
    }

    /// The configured interval with jitter.
    fn interval(&self) -> Duration {
        let sync = &self.adapter.config().sync;
        let jitter = f64::from(sync.jitter_percent.min(100)) / 100.0;
        let factor =
            if jitter > 0.0 { rand::rng().random_range(1.0 - jitter..1.0 + jitter) } else { 1.0 };
        sync.poll_interval.mul_f64(factor)
    }

    /// Sends out what is due, as long as not too much is out already.
    async fn start_polls(&mut self, now: Instant) {
        if now >= self.accounts_due && !self.accounts_polling {
            self.accounts_polling = true;
            let persons = self.persons();
            let asker = Asker { adapter: self.adapter.clone(), priority: Priority::Poll };
            let ask = async move { Outcome::Accounts(asker.accounts_of(persons).await) };
            self.polls.push(ask.boxed());
        }
        self.start_group_polls(now, Priority::Urgent).await;
        // Turms gets no more at once than it may answer; the rest stays due.
        while self.polls.len() < self.adapter.config().admin.max_in_flight.max(2) as usize {
            if !self.start_group_polls(now, Priority::Poll).await {
                break;
            }
        }
    }

    /// Starts looks of one urgency; false when there are none.
    async fn start_group_polls(&mut self, now: Instant, priority: Priority) -> bool {
        let urgent = priority == Priority::Urgent;
        let mut due: Vec<(Instant, String)> = self
            .watches
            .iter()
            .filter(|(_, watch)| !watch.polling && watch.due <= now && watch.urgent == urgent)
            .map(|(room, watch)| (watch.due, room.clone()))
            .collect();
        if due.is_empty() {
            return false;
        }
        due.sort_unstable();
        let asker = Asker { adapter: self.adapter.clone(), priority };
        let mut batch = Batch::new(asker.directory().page_size());
        let mut any = false;
        for (_, room) in due {
            let Some(question) = self.question(room, now).await else { continue };
            any = true;
            if let Some(full) = batch.add(question) {
                self.ask(asker.clone(), full);
                if !urgent {
                    // The rest stays due: others may be more so by then.
                    return true;
                }
            }
        }
        self.ask(asker, batch.questions);
        any
    }

    /// Sends out a look.
    fn ask(&mut self, asker: Asker, questions: Vec<Question>) {
        if questions.is_empty() {
            return;
        }
        for question in &questions {
            if let Some(watch) = self.watches.get_mut(&question.room) {
                watch.polling = true;
                watch.urgent = false;
            }
        }
        let look = async move {
            let answers = asker.look(&questions).await;
            Outcome::Rooms(questions, answers)
        };
        self.polls.push(look.boxed());
    }

    /// What to ask about a room; rooms that depend on no group are looked at here and now.
    async fn question(&mut self, room: String, now: Instant) -> Option<Question> {
        let interval = self.interval();
        let target = self.watches.get(&room)?.target;
        let present = self.present(&room).await?;
        let group = self.adapter.subject(target).group();
        let watch = self.watches.get_mut(&room)?;
        let users: HashSet<UserId> = present.iter().map(|present| present.user).collect();
        if let Some(group) = group
            && !users.is_empty()
        {
            return Some(Question {
                room,
                group,
                users: users.into_iter().collect(),
                estimate: watch.estimate,
                confirm: watch.suspect,
            });
        }
        // Nobody whom Turms knows, or a room whose facts are the block list's.
        watch.due = now + interval;
        watch.urgent = false;
        if group.is_some() {
            watch.answered = now;
        } else {
            self.act_on(&room, Answer::default()).await;
        }
        None
    }

    /// The Turms users in a room; `None` when it is gone.
    async fn present(&mut self, room: &str) -> Option<Vec<Present>> {
        match self.adapter.rooms().attendees(room).await {
            Ok(attendees) => Some(
                attendees
                    .into_iter()
                    .filter_map(|attendee| {
                        let user = user_of_identity(&attendee.identity)?;
                        Some(Present { identity: attendee.identity, user })
                    })
                    .collect(),
            ),
            Err(_) => {
                self.watches.remove(room);
                None
            }
        }
    }

    fn persons(&self) -> Persons {
        let mut persons = Persons::default();
        for watch in self.watches.values() {
            let identities = watch.applied.keys();
            let users = identities.filter_map(|identity| user_of_identity(identity));
            let subject = self.adapter.subject(watch.target);
            match subject {
                Subject::Group { .. } => persons.present.extend(users),
                _ => persons.apart.extend(users),
            }
            if let Subject::Pair { pair, .. } = subject {
                persons.pairs.insert(pair);
            }
        }
        persons.present.extend(&persons.apart);
        persons
    }

    async fn take(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Accounts(result) => {
                self.accounts_polling = false;
                let now = Instant::now();
                let again = std::mem::take(&mut self.accounts_again);
                self.accounts_due = if again { now } else { now + self.interval() };
                if let Ok(accounts) = result {
                    self.take_accounts(accounts).await;
                }
            }
            Outcome::Rooms(questions, Ok(answers)) => {
                for (question, answer) in questions.iter().zip(&answers) {
                    if let Some(watch) = self.watches.get_mut(&question.room) {
                        watch.missing = answer.group.is_none();
                    }
                }
                let many_vanish = self.many_groups_vanish();
                for (question, answer) in questions.into_iter().zip(answers) {
                    self.take_answer(question, answer, many_vanish).await;
                }
            }
            Outcome::Rooms(questions, Err(error)) => self.take_failure(&questions, error),
        }
        self.count_watches();
    }

    fn take_failure(&mut self, questions: &[Question], error: TurmsError) {
        let interval = self.interval();
        for question in questions {
            if let Some(watch) = self.watches.get_mut(&question.room) {
                watch.polling = false;
                watch.again = false;
                watch.due = Instant::now() + error.retry_after().min(interval);
            }
        }
    }

    /// Blocks and their ends take effect at once, on the facts that are known.
    async fn take_accounts(&mut self, accounts: Accounts) {
        let changed = accounts.changed(&self.accounts);
        self.accounts = accounts;
        let now = Instant::now();
        let mut concerned = Vec::new();
        for (room, watch) in &mut self.watches {
            if self.adapter.subject(watch.target).group().is_none() {
                watch.answered = now;
            }
            if changed.iter().any(|user| watch.has(*user)) {
                concerned.push(room.clone());
            }
        }
        for room in concerned {
            self.act_again(&room).await;
        }
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let stale_after = self.adapter.config().sync.stale_after;
        let full = self.polls.len() >= self.adapter.config().admin.max_in_flight.max(2) as usize;
        let digest = self.adapter.config().messages.roster_digest;
        let mut next = self.rooms_due;
        if !self.accounts_polling {
            next = next.min(self.accounts_due);
        }
        for watch in self.watches.values() {
            if !watch.polling && (!full || watch.urgent) {
                next = next.min(watch.due);
            }
            if let Some(wake) = watch.wake {
                next = next.min(wake);
            }
            if !watch.stale {
                next = next.min(watch.answered + stale_after);
            }
        }
        if !digest.is_zero() {
            next = next.min(now + digest);
        }
        next.max(now)
    }
}

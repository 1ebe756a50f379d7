//! One look at Turms for many rooms: which requests are needed, and what each room's answer is.
//!
//! Groups and block lists are asked for in long lists of ids. Memberships are asked for by the
//! users who are there, or, where many are, of whole groups as far as an answer can hold them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::adapter::Adapter;
use crate::admin::{
    Directory, GroupRecord, MAX_ID_LIST, MemberRecord, Priority, TurmsResult, id_chunks, id_list,
};
use crate::ids::{GroupId, UserId};
use crate::policy::{GroupFacts, MemberFacts};

/// Rooms with more participants than this ask for the whole group.
const MANY_PARTICIPANTS: usize = 30;

/// How full an answer may be expected to get, percent: groups grow between two looks.
const ANSWER_FILL_PERCENT: usize = 90;

/// A room to look at.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) room: String,
    pub(super) group: GroupId,
    /// Turms users who are there.
    pub(super) users: Vec<UserId>,
    /// How many members the group had last time; 0 = unknown.
    pub(super) estimate: usize,
    /// A second look: also count.
    pub(super) confirm: bool,
}

/// What Turms says of a room's group.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) group: Option<GroupFacts>,
    pub(super) members: HashMap<UserId, MemberFacts>,
    pub(super) blocked: HashSet<UserId>,
    /// Accounts that Turms has records of, and whether they are active.
    pub(super) accounts: HashMap<UserId, bool>,
    /// Users that the answer is about: those who were there.
    pub(super) asked: HashSet<UserId>,
    /// A second look: members of the group, or, where there is no such group, all groups.
    pub(super) total: Option<u64>,
    /// Memberships that came along, of users who are not there too.
    pub(super) seen_members: usize,
    /// The whole group was asked for.
    pub(super) whole: bool,
}

/// Asks Turms, for somebody who waits or for nobody.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) adapter: Arc<Adapter>,
    pub(super) priority: Priority,
}

/// Questions for one look: so many as group ids fit a request and groups its answer.
pub(super) struct Batch {
    pub(super) questions: Vec<Question>,
    id_length: usize,
    max_groups: usize,
}

impl Batch {
    pub(super) fn new(page_size: usize) -> Self {
        Self { questions: Vec::new(), id_length: 0, max_groups: page_size.max(1) }
    }

    /// Adds one; returns those before it when it would have been too many.
    pub(super) fn add(&mut self, question: Question) -> Option<Vec<Question>> {
        let own = question.group.to_string().len() + 1;
        let full = self.id_length + own > MAX_ID_LIST || self.questions.len() >= self.max_groups;
        let before = full.then(|| std::mem::take(&mut self.questions));
        self.id_length = if full { own } else { self.id_length + own };
        self.questions.push(question);
        before
    }
}

impl Asker {
    pub(super) fn directory(&self) -> &dyn Directory {
        self.adapter.directory().as_ref()
    }

    /// Asks everything about rooms whose group ids fit one request.
    pub(super) async fn look(&self, questions: &[Question]) -> TurmsResult<Vec<Answer>> {
        let speakable_types = self.adapter.speakable_types().await?;
        let groups: Vec<GroupId> = questions.iter().map(|question| question.group).collect();
        let records = self.directory().groups(&groups, self.priority).await?;
        let records: HashMap<i64, &GroupRecord> = records.iter().map(|r| (r.id, r)).collect();
        let mut answers: Vec<Answer> = questions
            .iter()
            .map(|question| Answer {
                group: records.get(&question.group.get()).map(|record| {
                    let speakable =
                        record.type_id.is_some_and(|kind| speakable_types.contains(&kind));
                    record.facts(speakable)
                }),
                asked: question.users.iter().copied().collect(),
                ..Answer::default()
            })
            .collect();
        self.members(questions, &mut answers).await?;
        self.blocks(questions, &mut answers).await?;
        if self.adapter.config().admin.check_users {
            self.accounts(questions, &mut answers).await?;
        }
        for (question, answer) in questions.iter().zip(&mut answers) {
            if !question.confirm {
                continue;
            }
            let directory = self.directory();
            answer.total = Some(match answer.group {
                Some(_) => directory.count_members(question.group, self.priority).await?,
                // A Turms that answers with fewer records than asked for has left it out.
                None if !directory.groups(&[question.group], self.priority).await?.is_empty() => 0,
                None => directory.count_groups(self.priority).await?,
            });
        }
        Ok(answers)
    }

    async fn members(&self, questions: &[Question], answers: &mut [Answer]) -> TurmsResult<()> {
        let budget = self.directory().page_size() * ANSWER_FILL_PERCENT / 100;
        let is_whole = |question: &Question| {
            question.users.len() > MANY_PARTICIPANTS && expected(question) <= budget
        };
        let (whole, by_user): (Vec<usize>, Vec<usize>) =
            (0..questions.len()).partition(|at| is_whole(&questions[*at]));
        let mut alone = Vec::new();
        for run in runs(&whole, budget, |at| expected(&questions[at])) {
            let groups: Vec<GroupId> = run.iter().map(|at| questions[*at].group).collect();
            let records = self.directory().members(&groups, &[], self.priority).await?;
            if records.len() >= self.directory().page_size() {
                // Some may be missing.
                alone.extend(run);
                continue;
            }
            for at in &run {
                answers[*at].whole = true;
                take_members(&questions[*at], &records, &mut answers[*at]);
            }
        }
        // Of rooms with few participants, so many at once as ids fit a request.
        let weight = |at: usize| id_length(&questions[at]);
        for run in runs(&by_user, MAX_ID_LIST, weight) {
            let groups: Vec<GroupId> = run.iter().map(|at| questions[*at].group).collect();
            let users: HashSet<UserId> =
                run.iter().flat_map(|at| questions[*at].users.iter().copied()).collect();
            let users: Vec<UserId> = users.into_iter().collect();
            if users.is_empty() {
                continue;
            }
            if run.len() == 1 {
                alone.extend(run);
                continue;
            }
            let records = self.directory().members(&groups, &users, self.priority).await?;
            if records.len() >= self.directory().page_size() {
                alone.extend(run);
                continue;
            }
            for at in &run {
                take_members(&questions[*at], &records, &mut answers[*at]);
            }
        }
        for at in alone {
            let question = &questions[at];
            let taken = question.group.to_string().len();
            for page in question.users.chunks(budget.max(1)) {
                for users in id_chunks(page, taken) {
                    let records =
                        self.directory().members(&[question.group], users, self.priority).await?;
                    take_members(question, &records, &mut answers[at]);
                }
            }
        }
        Ok(())
    }

    async fn blocks(&self, questions: &[Question], answers: &mut [Answer]) -> TurmsResult<()> {
        let groups: Vec<GroupId> = questions.iter().map(|question| question.group).collect();
        let records = self.directory().group_blocks(&groups, &[], self.priority).await?;
        let mut all: HashSet<(GroupId, UserId)> =
            records.iter().filter_map(|record| record.key.ids()).collect();
        if records.len() >= self.directory().page_size() {
            // Long lists: only those who are there.
            for question in questions {
                for users in id_chunks(&question.users, question.group.to_string().len()) {
                    let groups = [question.group];
                    let records =
                        self.directory().group_blocks(&groups, users, self.priority).await?;
                    all.extend(records.iter().filter_map(|record| record.key.ids()));
                }
            }
        }
        for (question, answer) in questions.iter().zip(answers) {
            let users = question.users.iter().copied();
            answer.blocked = users.filter(|user| all.contains(&(question.group, *user))).collect();
        }
        Ok(())
    }

    async fn accounts(&self, questions: &[Question], answers: &mut [Answer]) -> TurmsResult<()> {
        let users: HashSet<UserId> =
            questions.iter().flat_map(|question| question.users.iter().copied()).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        let active = self.are_active(&users).await?;
        for answer in answers {
            let known = answer.asked.iter();
            answer.accounts = known.filter_map(|user| Some((*user, *active.get(user)?))).collect();
        }
        Ok(())
    }
}

/// How many memberships the whole group will answer with.
fn expected(question: &Question) -> usize {
    if question.estimate > 0 { question.estimate } else { question.users.len() * 2 }
}

fn id_length(question: &Question) -> usize {
    question.group.to_string().len() + 1 + id_list(&question.users).len() + 1
}

/// Cuts a list into runs whose weights add up to at most `limit` (single items may exceed it).
fn runs(items: &[usize], limit: usize, weight: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let mut sum = 0;
    for item in items.iter().copied() {
        let own = weight(item);
        match runs.last_mut() {
            Some(run) if sum + own <= limit => run.push(item),
            _ => {
                runs.push(vec![item]);
                sum = 0;
            }
        }
        sum += own;
    }
    runs
}

fn take_members(question: &Question, records: &[MemberRecord], answer: &mut Answer) {
    for record in records {
        let Some((group, user)) = record.key.ids() else { continue };
        if group != question.group {
            continue;
        }
        answer.seen_members += 1;
        if answer.asked.contains(&user) {
            answer.members.insert(user, record.facts());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_respect_their_limit() {
        let weights = [3, 3, 3, 9, 1, 1];
        let items: Vec<usize> = (0..weights.len()).collect();
        let cut = runs(&items, 6, |at| weights[at]);
        assert_eq!(cut, [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
    }
}

//! The payload of a Turms JWT and its policy statements.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Most statements that Turms accepts in one token.
pub(super) const MAX_STATEMENTS: usize = 100;

/// The resource of conference requests in policy statements.
pub(super) const MEETING: &str = "MEETING";

/// A string or a list of strings.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn contains(&self, wanted: &str) -> bool {
        match self {
            Self::One(value) => value == wanted,
            Self::Many(values) => values.iter().any(|value| value == wanted),
        }
    }
}

/// Registered claims that matter here; everything else stays in `other`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Payload {
    pub(super) iss: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) aud: Option<OneOrMany>,
    pub(super) exp: Option<f64>,
    pub(super) nbf: Option<f64>,
    pub(super) iat: Option<f64>,
    pub(super) statements: Option<Vec<Statement>>,
    #[serde(flatten)]
    pub(super) other: Map<String, Value>,
}

/// One `{effect, actions, resources}`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Statement {
    effect: Effect,
    actions: OneOrMany,
    resources: OneOrMany,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Effect {
    Allow,
    Deny,
}

/// What somebody wants to do with meetings (`PolicyStatementAction` of Turms).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a meeting.
    Create,
    /// Cancel a meeting.
    Delete,
    /// Change a meeting or accept an invitation: join.
    Update,
    /// Look at meetings and rosters.
    Query,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Delete => "DELETE",
            Self::Update => "UPDATE",
            Self::Query => "QUERY",
        }
    }
}

/// What a verified token lets its user do with meetings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MeetingPolicy {
    allowed: u8,
}

impl MeetingPolicy {
    const ACTIONS: [Action; 4] = [Action::Create, Action::Delete, Action::Update, Action::Query];

    /// Everything, for deployments whose tokens carry no statements.
    pub const ALL: Self = Self { allowed: 0b1111 };

    pub(super) fn from_statements(statements: &[Statement]) -> Self {
        let mut allowed = 0;
        for (bit, action) in Self::ACTIONS.into_iter().enumerate() {
            let matching = statements.iter().filter(|s| s.covers(action)).map(|s| s.effect);
            // A DENY wins over any ALLOW.
            let verdict = matching.fold(None, |verdict, effect| match (verdict, effect) {
                (Some(Effect::Deny), _) | (_, Effect::Deny) => Some(Effect::Deny),
                _ => Some(Effect::Allow),
            });
            if verdict == Some(Effect::Allow) {
                allowed |= 1 << bit;
            }
        }
        Self { allowed }
    }

    /// Whether the token allows an action on meetings.
    pub fn allows(self, action: Action) -> bool {
        Self::ACTIONS
            .iter()
            .position(|a| *a == action)
            .is_some_and(|bit| self.allowed & (1 << bit) != 0)
    }
}

/// From a list of statements, as the `statements` of a token.
impl<'de> Deserialize<'de> for MeetingPolicy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let statements: Vec<Statement> = Vec::deserialize(deserializer)?;
        if statements.len() > MAX_STATEMENTS {
            return Err(serde::de::Error::custom("too many statements"));
        }
        Ok(Self::from_statements(&statements))
    }
}

impl Statement {
    fn covers(&self, action: Action) -> bool {
        (self.actions.contains("*") || self.actions.contains(action.name()))
            && (self.resources.contains("*") || self.resources.contains(MEETING))
    }
}

/// Turms compares expected claims by their text, so that `"true"` passes for `true`.
pub(crate) fn loosely_equal(actual: &Value, expected: &Value) -> bool {
    fn text(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
    actual == expected
        || text(actual).is_some_and(|actual| text(expected).is_some_and(|e| e == actual))
}

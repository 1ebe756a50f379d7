//! Tokens: what a user asks for, what Turms says to it, and what is signed then.

use std::time::Duration;

use axum::http::StatusCode;

use super::{Adapter, Standing};
use crate::gate::TokenFacts;
use crate::http::Refusal;
use crate::identity::Principal;
use crate::ids::{Target, UserId, user_of_identity};
use crate::jwt::Action;
use crate::policy::{DenyReason, Rights};
use crate::rooms::TokenSpec;

/// What a user wants a token for.
#[derive(Debug)]
pub(crate) struct TokenWish {
    pub(crate) target: Target,
    pub(crate) plugin_token: Option<String>,
    pub(crate) device_type: Option<String>,
    pub(crate) name: String,
    pub(crate) ttl: Option<Duration>,
}

/// A token and what it says.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) room: String,
    pub(crate) identity: String,
    pub(crate) expires_at: i64,
    pub(crate) rights: Rights,
}

impl TokenWish {
    /// A token of the longest life, without more.
    pub(crate) fn plain(target: Target) -> Self {
        Self { target, plugin_token: None, device_type: None, name: String::new(), ttl: None }
    }
}

impl Adapter {
    /// Hands out a token, if Turms says that the user may be there.
    pub(crate) async fn issue(
        &self,
        principal: &Principal,
        wish: TokenWish,
    ) -> Result<Issued, Refusal> {
        let result = self.standing_for(principal, &wish).await;
        let standing = result.inspect_err(|refusal| self.count_refusal(refusal))?;
        self.mint(principal.user, wish, standing)
    }

    /// Signs a token that says what a user may do.
    pub(super) fn mint(
        &self,
        user: UserId,
        wish: TokenWish,
        standing: Standing,
    ) -> Result<Issued, Refusal> {
        let room = wish.target.room_name();
        let identity = self.config.identity_mode.identity(user, wish.device_type.as_deref());
        let ttl = wish.ttl.map_or(self.config.token_ttl, |ttl| ttl.min(self.config.token_ttl));
        let issued_at = self.gate.issue_from(&room, user, self.now());
        let is_meeting = matches!(wish.target, Target::Meeting(_));
        let key = &self.config.compat.api_key;
        let mut attributes = standing.attributes();
        attributes.retain(|_, value| !value.is_empty());
        let token = self.rooms.mint(&TokenSpec {
            room: room.clone(),
            identity: identity.clone(),
            name: wish.name,
            rights: standing.rights,
            attributes,
            issued_at,
            ttl,
            api_key: (is_meeting && !key.is_empty()).then(|| key.clone()),
        })?;
        self.stats.tokens_issued.add();
        let expires_at = issued_at + i64::try_from(ttl.as_secs()).unwrap_or_default();
        Ok(Issued { token, room, identity, expires_at, rights: standing.rights })
    }

    async fn standing_for(
        &self,
        principal: &Principal,
        wish: &TokenWish,
    ) -> Result<Standing, Refusal> {
        let denied = || Refusal::denied(DenyReason::Policy);
        if !principal.policy.allows(Action::Update) {
            return Err(denied());
        }
        match self.rooms.open_room(&wish.target.room_name()) {
            // The first one there opens the room.
            None if !principal.policy.allows(Action::Create) => return Err(denied()),
            Some(open)
                if open.max_participants > 0 && open.participants >= open.max_participants =>
            {
                return Err(Refusal::room_full());
            }
            _ => {}
        }
        self.standing(principal.user, wish.target, wish.plugin_token.as_deref()).await
    }

    /// Whether a user may look at the roster of a room.
    pub(crate) async fn may_see(
        &self,
        principal: &Principal,
        target: Target,
    ) -> Result<(), Refusal> {
        if !principal.policy.allows(Action::Query) {
            return Err(Refusal::denied(DenyReason::Policy));
        }
        self.standing(principal.user, target, None).await.map(|_| ())
    }

    /// The user and the room of one of our own tokens, as long as it lets its holder join.
    pub(crate) fn holder(&self, token: &str) -> Option<(UserId, String)> {
        let proof = self.rooms.verify_join(token)?;
        let facts = TokenFacts {
            api_key: &proof.api_key,
            identity: &proof.identity,
            issued_at: proof.issued_at,
        };
        self.gate.admit(&proof.room, facts, self.now()).ok()?;
        Some((user_of_identity(&proof.identity)?, proof.room))
    }

    /// Whether Turms lets a user join the room now that `token` is for.
    pub(crate) async fn still_may_join(
        &self,
        user: UserId,
        target: Target,
        token: &str,
    ) -> Result<(), Refusal> {
        self.standing(user, target, Some(token)).await.map(|_| ())
    }

    fn count_refusal(&self, refusal: &Refusal) {
        match refusal.status {
            StatusCode::SERVICE_UNAVAILABLE => self.stats.tokens_unavailable.add(),
            _ => self.stats.tokens_denied.add(),
        }
    }
}

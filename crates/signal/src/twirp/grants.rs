//! Which token may call what.

use super::error::TwirpError;
use crate::auth::Caller;
use crate::token::VideoGrant;

pub(super) fn allow(
    caller: &Caller,
    right: impl FnOnce(&VideoGrant) -> bool,
) -> Result<(), TwirpError> {
    let grant = caller.claims().and_then(|claims| claims.video.as_ref());
    if grant.is_some_and(right) { Ok(()) } else { Err(TwirpError::permission_denied()) }
}

/// An administrator's token is for one room.
pub(super) fn allow_admin(caller: &Caller, room: &str) -> Result<(), TwirpError> {
    allow(caller, |grant| grant.room_admin && grant.room == room)?;
    match caller.gate() {
        Some((gate, token)) if !gate.may_administer(room, token) => {
            Err(TwirpError::permission_denied())
        }
        _ => Ok(()),
    }
}

/// Whether the name is free for this caller.
pub(super) fn allow_manage(caller: &Caller, room: &str) -> Result<(), TwirpError> {
    match caller.gate() {
        Some((gate, token)) if !gate.may_manage(room, token) => {
            Err(TwirpError::permission_denied())
        }
        _ => Ok(()),
    }
}

/// Who sends a participant elsewhere needs a right on both rooms.
pub(super) fn allow_destination(
    caller: &Caller,
    room: &str,
    destination: &str,
) -> Result<(), TwirpError> {
    allow_admin(caller, room)?;
    allow(caller, |grant| grant.destination_room == destination)
}

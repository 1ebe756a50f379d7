//! Services that LiveKit has and this server does not: every method is known and says so, after it
//! has checked that the caller may ask.

use axum::response::Response;

use super::error::TwirpError;
use crate::auth::Caller;
use crate::token::Claims;

/// The right that a method needs.
#[derive(Debug, Clone, Copy)]
enum Right {
    RoomRecord,
    IngressAdmin,
    SipAdmin,
    SipCall,
    /// The schema names none: any valid token may hear the answer.
    AnyToken,
}

struct Service {
    name: &'static str,
    methods: &'static [(&'static str, Right)],
    reason: &'static str,
}

use Right::{AnyToken, IngressAdmin, RoomRecord, SipAdmin, SipCall};

const SERVICES: [Service; 5] = [
    Service {
        name: "livekit.Egress",
        methods: &[
            ("StartEgress", RoomRecord),
            ("StartRoomCompositeEgress", RoomRecord),
            ("StartWebEgress", RoomRecord),
            ("StartParticipantEgress", RoomRecord),
            ("StartTrackCompositeEgress", RoomRecord),
            ("StartTrackEgress", RoomRecord),
            ("UpdateLayout", RoomRecord),
            ("UpdateStream", RoomRecord),
            ("ListEgress", RoomRecord),
            ("StopEgress", RoomRecord),
        ],
        reason: "egress is not available: this server does not record yet",
    },
    Service {
        name: "livekit.Ingress",
        methods: &[
            ("CreateIngress", IngressAdmin),
            ("UpdateIngress", IngressAdmin),
            ("ListIngress", IngressAdmin),
            ("DeleteIngress", IngressAdmin),
        ],
        reason: "ingress is not available: publish with WHIP or a client SDK instead",
    },
    Service {
        name: "livekit.SIP",
        methods: &[
            ("ListSIPTrunk", SipAdmin),
            ("CreateSIPTrunk", SipAdmin),
            ("CreateSIPInboundTrunk", SipAdmin),
            ("CreateSIPOutboundTrunk", SipAdmin),
            ("UpdateSIPInboundTrunk", SipAdmin),
            ("UpdateSIPOutboundTrunk", SipAdmin),
            ("GetSIPInboundTrunk", SipAdmin),
            ("GetSIPOutboundTrunk", SipAdmin),
            ("ListSIPInboundTrunk", SipAdmin),
            ("ListSIPOutboundTrunk", SipAdmin),
            ("DeleteSIPTrunk", SipAdmin),
            ("CreateSIPDispatchRule", SipAdmin),
            ("UpdateSIPDispatchRule", SipAdmin),
            ("ListSIPDispatchRule", SipAdmin),
            ("DeleteSIPDispatchRule", SipAdmin),
            ("CreateSIPParticipant", SipCall),
            ("TransferSIPParticipant", SipCall),
        ],
        reason: "SIP is not available: this server does not speak SIP",
    },
    Service {
        name: "livekit.Connector",
        methods: &[
            ("DialWhatsAppCall", AnyToken),
            ("DisconnectWhatsAppCall", AnyToken),
            ("ConnectWhatsAppCall", AnyToken),
            ("AcceptWhatsAppCall", AnyToken),
            ("ConnectTwilioCall", AnyToken),
        ],
        reason: "connectors are not available: LiveKit offers them in its cloud only",
    },
    Service {
        name: "livekit.PhoneNumberService",
        methods: &[
            ("SearchPhoneNumbers", AnyToken),
            ("PurchasePhoneNumber", AnyToken),
            ("ListPhoneNumbers", AnyToken),
            ("GetPhoneNumber", AnyToken),
            ("UpdatePhoneNumber", AnyToken),
            ("ReleasePhoneNumbers", AnyToken),
        ],
        reason: "phone numbers are not available: LiveKit offers them in its cloud only",
    },
];

/// Refuses a call of a known service; `None` when the service or the method is not known either.
pub(super) fn serve(
    caller: &Caller,
    service: &str,
    method: &str,
) -> Option<Result<Response, TwirpError>> {
    let service = SERVICES.iter().find(|known| known.name == service)?;
    let (_, right) = service.methods.iter().find(|(name, _)| *name == method)?;
    let allowed = caller.claims().is_some_and(|claims| right.is_in(claims));
    Some(Err(if allowed {
        TwirpError::unimplemented(service.reason)
    } else {
        TwirpError::permission_denied()
    }))
}

impl Right {
    fn is_in(self, claims: &Claims) -> bool {
        let (video, sip) = (claims.video.as_ref(), claims.sip.as_ref());
        match self {
            RoomRecord => video.is_some_and(|grant| grant.room_record),
            IngressAdmin => video.is_some_and(|grant| grant.ingress_admin),
            SipAdmin => sip.is_some_and(|grant| grant.admin),
            SipCall => sip.is_some_and(|grant| grant.call),
            AnyToken => true,
        }
    }
}

//! Services that LiveKit has and this server does not: every method is known and says so, after it
//! has checked that the caller may ask. What lists something answers with an empty list, so that
//! tools which show everything there is go on.

use axum::response::Response;

use super::PACKAGE;
use super::error::TwirpError;
use super::wire::Call;
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
    /// The answer of its lists in JSON; in protobuf it has no bytes.
    empty_list: Option<&'static str>,
}

/// An empty list of a service that gives its lists in pages, and of one that does not.
const EMPTY_PAGE: &str = r#"{"items":[],"next_page_token":null}"#;
const EMPTY_LIST: &str = r#"{"items":[]}"#;

use Right::{AnyToken, IngressAdmin, RoomRecord, SipAdmin, SipCall};

static SERVICES: [Service; 5] = [
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
        empty_list: Some(EMPTY_PAGE),
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
        empty_list: Some(EMPTY_PAGE),
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
        empty_list: Some(EMPTY_LIST),
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
        empty_list: None,
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
        empty_list: None,
    },
];

/// Answers a call of a known service; `None` when the service or the method is not known either.
pub(super) fn serve(
    caller: &Caller,
    service: &str,
    method: &str,
    call: &Call,
) -> Option<Result<Response, TwirpError>> {
    let (service, (method, right)) = find(service, method)?;
    let allowed = caller.claims().is_some_and(|claims| right.is_in(claims));
    Some(match service.empty_list {
        _ if !allowed => Err(TwirpError::permission_denied()),
        Some(list) if method.starts_with("List") => Ok(call.encode_empty(list)),
        _ => Err(TwirpError::unimplemented(service.reason)),
    })
}

/// Names of the service, without its package, and of the method.
pub(super) fn known(service: &str, method: &str) -> Option<(&'static str, &'static str)> {
    let (service, (method, _)) = find(service, method)?;
    Some((service.name.strip_prefix(PACKAGE)?, method))
}

fn find(service: &str, method: &str) -> Option<(&'static Service, &'static (&'static str, Right))> {
    let service = SERVICES.iter().find(|known| known.name == service)?;
    Some((service, service.methods.iter().find(|(name, _)| *name == method)?))
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

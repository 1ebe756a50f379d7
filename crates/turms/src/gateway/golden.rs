//! Messages of Turms' client protocol byte by byte, put together by hand from the field numbers of
//! `turms-im/proto` (`TurmsRequest`, `TurmsNotification`), and what becomes of them here. Those of
//! the real client were recorded from Turms' own JavaScript client.

use bytes::BytesMut;
use prost::Message;

use super::answer;
use super::frames::{
    RequestKind, TurmsNotification, TurmsRequest, decode_notification, next_frame,
};

/// 2023-11-14T22:13:20Z as field 1 of a notification.
const TIMESTAMP: &str = "08 80d095ffbc31";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("a hex digit") as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn notification(fields: &str) -> Vec<u8> {
    [hex(TIMESTAMP), hex(fields)].concat()
}

fn read(fields: &str) -> TurmsNotification {
    let notification = decode_notification(&notification(fields)).expect("a notification");
    assert_eq!(notification.timestamp, 1_700_000_000_000);
    notification
}

/// What the probe makes of a notification while it waits for its login.
fn probed(fields: &str) -> Result<Option<i32>, String> {
    answer(&notification(fields).into())
}

#[test]
fn our_login_and_logout_are_written_like_this() {
    // request_id 1; create_session_request { version 1, user_id, password "pw", INVISIBLE, UNKNOWN }
    let login = hex("0801 1a0c 0801 1001 1a027077 2002 2805");
    assert_eq!(TurmsRequest::login(1, 1, "pw").encode_to_vec(), login);
    // The largest id: nine bytes of seven bits.
    let login = hex("0801 1a14 0801 10ffffffffffffffff7f 1a027077 2002 2805");
    assert_eq!(TurmsRequest::login(1, i64::MAX, "pw").encode_to_vec(), login);
    // request_id 2; delete_session_request {}
    assert_eq!(TurmsRequest::logout(2).encode_to_vec(), hex("0802 2200"));
    let framed = TurmsRequest::login(1, 1, "pw").encode_length_delimited_to_vec();
    assert_eq!(framed, hex("10 0801 1a0c 0801 1001 1a027077 2002 2805"));
}

/// It leaves the device type out, which means a desktop.
#[test]
fn a_login_of_the_real_client_is_understood() {
    let request = TurmsRequest::decode(&hex("0807 1a0b 0801 1001 1a034a5754 2000")[..]).unwrap();
    assert_eq!(request.request_id, Some(7));
    let Some(RequestKind::CreateSession(session)) = request.kind else { panic!("a login") };
    assert_eq!((session.version, session.user_id), (1, 1));
    assert_eq!(session.password.as_deref(), Some("JWT"));
    assert_eq!((session.user_status, session.device_type), (Some(0), 0));
}

/// device_details { "k": "v" }, location { latitude 1, longitude 2 } and custom attributes.
#[test]
fn fields_that_we_do_not_write_are_skipped() {
    let more = "3206 0a016b 120176 3a0a 0d0000803f 1500000040 7a00";
    let bytes = hex(&format!("0807 1a1c 0801 1001 2801 {more}"));
    let request = TurmsRequest::decode(&bytes[..]).unwrap();
    let Some(RequestKind::CreateSession(session)) = request.kind else { panic!("a login") };
    assert_eq!((session.user_id, session.device_type, session.password), (1, 1, None));
}

#[test]
fn other_requests_of_the_real_client_are_none_of_ours() {
    // create_meeting_request (900) { group_id 1, name "m" }
    // update_meeting_invitation_request (904) { meeting_id 123456789 }; ACCEPT is the default
    // query_meetings_request (902) { ids [123456789] }
    // create_group_blocked_user_request (400) { group_id 42, user_id 7 }
    for bytes in [
        "0807 a23805 1001 1a016d",
        "0807 c23805 08959aef3a",
        "0807 b23806 0a04959aef3a",
        "0807 821904 082a 1007",
    ] {
        let request = TurmsRequest::decode(&hex(bytes)[..]).unwrap();
        assert_eq!(request, TurmsRequest { request_id: Some(7), kind: None }, "{bytes}");
    }
}

#[test]
fn a_login_is_accepted_by_the_answer_to_it_alone() {
    // request_id 1, code 1000, data { user_session { session_id "a", server_id "b" } }
    assert_eq!(probed("2001 28e807 3a08 4206 0a0161 120162"), Ok(Some(1000)));
    assert_eq!(probed("2002 28e807"), Ok(None), "the answer to another request");
    assert_eq!(probed("28e807"), Ok(None), "an answer to none");
    assert_eq!(probed("2001"), Ok(Some(0)), "no code is no success");
    // data { long 123456789 }: the answer to a create_meeting_request
    assert_eq!(probed("2003 28e807 3a05 08959aef3a"), Ok(None));
}

#[test]
fn refusals_of_a_login_carry_their_code() {
    // LOGIN_AUTHENTICATION_FAILED with a reason, LOGGING_IN_USER_NOT_ACTIVE,
    // UNSUPPORTED_CLIENT_VERSION
    let refused = read("2001 28db0f 3202 6e6f");
    assert_eq!((refused.request_id, refused.code), (Some(1), Some(2011)));
    assert_eq!(refused.reason.as_deref(), Some("no"));
    assert_eq!(probed("2001 28db0f 3202 6e6f"), Ok(Some(2011)));
    assert_eq!(probed("2001 28dc0f"), Ok(Some(2012)));
    assert_eq!(probed("2001 28d00f"), Ok(Some(2000)));
}

#[test]
fn a_heartbeat_that_failed_is_no_answer_to_a_login() {
    // request_id -100, code 2104
    let failed = read("209cffffffffffffffff01 28b810");
    assert_eq!((failed.request_id, failed.code), (Some(-100), Some(2104)));
    assert_eq!(probed("209cffffffffffffffff01 28b810"), Ok(None));
    assert_eq!(answer(&bytes::Bytes::new()), Ok(None), "one that worked is empty");
}

#[test]
fn the_end_of_a_session_is_never_success() {
    // DISCONNECTED_BY_OTHER_DEVICE, with and without a code; DISCONNECTED_BY_ADMIN as an answer
    assert_eq!(read("58f503").close_status, Some(501));
    assert_eq!(probed("58f503"), Ok(Some(0)));
    assert_eq!(probed("28db0f 58f503"), Ok(Some(2011)));
    assert!(probed("2001 28e807 58d804").is_err(), "says success and closes");
}

#[test]
fn what_others_do_is_none_of_our_business() {
    // requester 2, relayed create_message_request: a system message with an invitation to a meeting
    let invitation =
        "5002 621d 421b 0809 1001 1801 3a0102 3a10 08959aef3a 1801 2002 4880d095ffbc31";
    // requester 1, relayed delete_group_members_request { group_id 42, member_ids [7] }
    let removal = "5001 6207 6205 082a 120107";
    // requester 1, relayed update_group_member_request { group_id 42, member_id 7, mute_end_date }
    let mute = "5001 620d 720b 082a 1007 2880d095ffbc31";
    for push in [invitation, removal, mute] {
        let notification = read(push);
        assert_eq!((notification.request_id, notification.code), (None, None));
        assert_eq!(probed(push), Ok(None));
    }
}

#[test]
fn a_stream_of_all_of_them_is_taken_apart() {
    let messages = [
        hex(""),
        notification("5001 6207 6205 082a 120107"),
        notification("2001 28e807"),
        notification(&format!("2001 28db0f 32c801 {}", "61".repeat(200))),
    ];
    let mut stream = BytesMut::new();
    for (message, length) in messages.iter().zip(["00", "12", "0c", "d701"]) {
        stream.extend_from_slice(&hex(length));
        stream.extend_from_slice(message);
    }
    for message in &messages {
        assert_eq!(next_frame(&mut stream).unwrap().unwrap(), message[..]);
    }
    assert_eq!(next_frame(&mut stream), Ok(None));
}

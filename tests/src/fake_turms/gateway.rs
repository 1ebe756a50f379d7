//! The gateway of the stand-in: logins over WebSocket and TCP. A heartbeat is an empty message and
//! comes back as one; whoever is not logged in gets no other answer than a refusal.

use axum::Router;
use axum::extract::State as Extract;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use bytes::BytesMut;
use prost::Message as _;
use sluice_turms::gateway::frames::{
    CODE_OK, CreateSessionRequest, RequestKind, TurmsNotification, TurmsRequest, next_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::FakeTurms;

/// `UNSUPPORTED_CLIENT_VERSION`
const CODE_VERSION: i32 = 2000;
/// `LOGIN_AUTHENTICATION_FAILED`
const CODE_AUTHENTICATION: i32 = 2011;
/// `LOGGING_IN_USER_NOT_ACTIVE`
const CODE_INACTIVE: i32 = 2012;
/// `ILLEGAL_ARGUMENT`
const CODE_ILLEGAL: i32 = 1102;
/// A request before a login.
const CODE_NO_SESSION: i32 = 2104;

/// WebSocket on any path, as Turms.
pub(super) fn router(fake: FakeTurms) -> Router {
    Router::new().fallback(any(upgrade)).with_state(fake)
}

async fn upgrade(Extract(fake): Extract<FakeTurms>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| over_websocket(fake, socket))
}

async fn over_websocket(fake: FakeTurms, mut socket: WebSocket) {
    let mut session = Session::new(fake);
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Binary(bytes) = message else { continue };
        let answer = session.answer(&bytes);
        if socket.send(Message::Binary(answer.into())).await.is_err() || session.over {
            return;
        }
    }
}

pub(super) async fn serve_tcp(fake: FakeTurms, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(over_tcp(fake.clone(), stream));
    }
}

async fn over_tcp(fake: FakeTurms, mut stream: TcpStream) {
    let mut session = Session::new(fake);
    let mut received = BytesMut::new();
    loop {
        while let Ok(Some(message)) = next_frame(&mut received) {
            let answer = session.answer(&message);
            let mut framed = Vec::new();
            prost::encoding::encode_varint(answer.len() as u64, &mut framed);
            framed.extend_from_slice(&answer);
            if stream.write_all(&framed).await.is_err() || session.over {
                return;
            }
        }
        match stream.read_buf(&mut received).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

struct Session {
    fake: FakeTurms,
    logged_in: bool,
    over: bool,
}

impl Session {
    fn new(fake: FakeTurms) -> Self {
        Self { fake, logged_in: false, over: false }
    }

    fn answer(&mut self, message: &[u8]) -> Vec<u8> {
        if message.is_empty() && self.logged_in {
            return Vec::new();
        }
        let (request_id, code) = match TurmsRequest::decode(message) {
            Ok(request) => (request.request_id, self.code(request.kind)),
            Err(_) => (None, CODE_ILLEGAL),
        };
        TurmsNotification {
            timestamp: 1_700_000_000_000,
            request_id,
            code: Some(code),
            ..TurmsNotification::default()
        }
        .encode_to_vec()
    }

    fn code(&mut self, kind: Option<RequestKind>) -> i32 {
        match kind {
            Some(RequestKind::CreateSession(login)) => {
                let code = self.login(&login);
                self.logged_in = code == CODE_OK;
                code
            }
            Some(RequestKind::DeleteSession(_)) => {
                self.over = true;
                CODE_OK
            }
            None => CODE_NO_SESSION,
        }
    }

    fn login(&self, login: &CreateSessionRequest) -> i32 {
        if login.version != 1 {
            return CODE_VERSION;
        }
        let mut state = self.fake.lock();
        match state.users.get(&login.user_id) {
            Some(user) if Some(&user.password) != login.password.as_ref() => CODE_AUTHENTICATION,
            Some(user) if !user.active => CODE_INACTIVE,
            Some(_) => {
                state.logins += 1;
                CODE_OK
            }
            None => CODE_AUTHENTICATION,
        }
    }
}

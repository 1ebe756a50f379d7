//! Asking Turms' gateway whether a password is right, by logging in with it and out again. For
//! deployments whose users have passwords and no JWTs.
//!
//! The login uses the device type `UNKNOWN`, so that it takes the place of no real device, and the
//! status "invisible". Callers throttle it: otherwise it would be an oracle for guessing passwords.

pub mod frames;
#[cfg(test)]
mod golden;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use self::frames::{CODE_OK, MAX_MESSAGE, TurmsRequest, decode_notification, next_frame};
use crate::ids::UserId;

/// Codes that mean that the login itself was refused: wrong password or token (2011), and an
/// account that is inactive (2012).
const REFUSALS: [i32; 2] = [2011, 2012];

/// The id of our login; any number does.
const LOGIN_ID: i64 = 1;
const LOGOUT_ID: i64 = 2;

/// What the gateway said of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The password is right.
    Accepted,
    /// It is not, or the account is inactive.
    Refused,
    /// Something else is in the way; the text says what.
    Failed(String),
}

/// Tries a login. Never hangs: `timeout` covers all of it.
pub async fn probe(url: &str, user: UserId, password: &str, timeout: Duration) -> Probe {
    let attempt = async {
        match url.split_once("://") {
            Some(("tcp", address)) => over_tcp(address, user, password).await,
            Some(("ws" | "wss", _)) => over_websocket(url, user, password).await,
            _ => Err("`turms.gateway_probe.url` is neither ws, wss nor tcp".to_owned()),
        }
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(Ok(code)) if code == CODE_OK => Probe::Accepted,
        Ok(Ok(code)) if REFUSALS.contains(&code) => Probe::Refused,
        Ok(Ok(code)) => Probe::Failed(format!("the gateway refuses logins with code {code}")),
        Ok(Err(error)) => Probe::Failed(error),
        Err(_) => Probe::Failed("the gateway does not answer in time".to_owned()),
    }
}

async fn over_tcp(address: &str, user: UserId, password: &str) -> Result<i32, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|_| "no connection".to_owned())?;
    let login = TurmsRequest::login(LOGIN_ID, user.get(), password);
    write(&mut stream, &login).await?;
    let mut received = BytesMut::new();
    loop {
        while let Some(message) = next_frame(&mut received).map_err(|e| e.to_string())? {
            if let Some(code) = answer(&message)? {
                // The session ends with the connection anyway; saying so is quicker.
                let _ = write(&mut stream, &TurmsRequest::logout(LOGOUT_ID)).await;
                return Ok(code);
            }
        }
        let count = stream.read_buf(&mut received).await;
        if count.map_err(|_| "the connection broke".to_owned())? == 0 {
            return Err("the gateway closed the connection".to_owned());
        }
    }
}

async fn write(stream: &mut TcpStream, request: &TurmsRequest) -> Result<(), String> {
    let bytes = request.encode_length_delimited_to_vec();
    stream.write_all(&bytes).await.map_err(|_| "the connection broke".to_owned())
}

async fn over_websocket(url: &str, user: UserId, password: &str) -> Result<i32, String> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let (mut socket, _) = tokio_tungstenite::connect_async_with_config(url, Some(config), true)
        .await
        .map_err(|_| "no WebSocket connection".to_owned())?;
    let binary = |request: &TurmsRequest| WsMessage::Binary(request.encode_to_vec().into());
    let login = TurmsRequest::login(LOGIN_ID, user.get(), password);
    socket.send(binary(&login)).await.map_err(|_| "the connection broke".to_owned())?;
    while let Some(message) = socket.next().await {
        let WsMessage::Binary(message) = message.map_err(|_| "the connection broke".to_owned())?
        else {
            continue;
        };
        if let Some(code) = answer(&message)? {
            let _ = socket.send(binary(&TurmsRequest::logout(LOGOUT_ID))).await;
            let _ = socket.close(None).await;
            return Ok(code);
        }
    }
    Err("the gateway closed the connection".to_owned())
}

/// The code of the answer to our login; `None` for everything else.
fn answer(message: &Bytes) -> Result<Option<i32>, String> {
    if message.is_empty() {
        return Ok(None);
    }
    let notification = decode_notification(message).map_err(|error| error.to_string())?;
    let code = notification.code.unwrap_or_default();
    if notification.close_status.is_some() {
        // It may carry a code that says why; success would be none.
        return if code == CODE_OK {
            Err("the gateway ended the session".into())
        } else {
            Ok(Some(code))
        };
    }
    Ok((notification.request_id == Some(LOGIN_ID)).then_some(code))
}

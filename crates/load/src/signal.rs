//! The signalling socket of one participant (LiveKit's v0: `/rtc`, binary protobuf).

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_proto::{Message as _, SignalRequest, SignalResponse};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use url::Url;

/// Protocol version of LiveKit's clients of this year.
const PROTOCOL: &str = "16";
/// How long the upgrade may take; LiveKit's clients give up then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of the body of a refusal is shown.
const SHOWN: usize = 200;

/// See the module.
pub(crate) struct Signal {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Signal {
    /// Opens the socket, for a new session or to take up that of a participant.
    ///
    /// # Errors
    /// The server refused, in its words, or could not be reached in time.
    pub(crate) async fn connect(
        url: &Url,
        token: &str,
        auto_subscribe: bool,
        resumed_sid: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut url = url.clone();
        {
            let mut path =
                url.path_segments_mut().map_err(|()| anyhow::anyhow!("not a ws:// URL"))?;
            path.pop_if_empty().push("rtc");
        }
        url.query_pairs_mut()
            .append_pair("access_token", token)
            .append_pair("protocol", PROTOCOL)
            .append_pair("sdk", "rust")
            .append_pair("version", env!("CARGO_PKG_VERSION"))
            .append_pair("auto_subscribe", if auto_subscribe { "1" } else { "0" });
        if let Some(sid) = resumed_sid {
            url.query_pairs_mut().append_pair("reconnect", "1").append_pair("sid", sid);
        }
        match tokio::time::timeout(CONNECT_TIMEOUT, connect_async(url.as_str())).await {
            Ok(Ok((socket, _))) => Ok(Self { socket }),
            Ok(Err(Error::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).into_owned();
                bail!("the server refused: {} {body}", response.status())
            }
            Ok(Err(error)) => Err(error).context("the WebSocket could not be opened"),
            Err(_) => bail!("the WebSocket was not opened in time"),
        }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// The socket is closed.
    pub(crate) async fn send(&mut self, request: Request) -> anyhow::Result<()> {
        let bytes = SignalRequest { message: Some(request) }.encode_to_vec();
        self.socket.send(Message::Binary(bytes.into())).await.context("signalling is closed")
    }

    /// The next response; `None` when the server closed the socket. Safe to cancel.
    ///
    /// # Errors
    /// The socket broke or the server sent something malformed.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Response>> {
        while let Some(message) = self.socket.next().await {
            match message.context("signalling broke")? {
                Message::Binary(bytes) => {
                    let response = SignalResponse::decode(bytes).context("malformed response")?;
                    if let Some(message) = response.message {
                        return Ok(Some(message));
                    }
                }
                Message::Close(_) => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Closes the socket.
    pub(crate) async fn close(mut self) {
        // Nobody is there to hear that it failed.
        let _ = self.socket.close(None).await;
    }
}

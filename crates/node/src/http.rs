//! The HTTP listener: accepts connections and keeps those bounded that have not said who they are.
//!
//! A connection must say what it wants within [`HttpLimits::header_timeout`], the rest of a request
//! must follow within [`HttpLimits::body_timeout`], and so many connections may do so at a time. A
//! WebSocket that was let in is no longer one of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Bytes that the head of a request may take while it is read. The longest that is of use has a
/// compressed session description in its URL, which ends at 64 KiB (crate `http`).
const MAX_HEAD: usize = 96 << 10;

/// After an error of the listener, such as no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// What a client may take up before it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HttpLimits {
    /// From the connection to the end of the first request's head.
    pub(crate) header_timeout: Duration,
    /// Between requests, and for the head of a later one.
    pub(crate) idle_timeout: Duration,
    /// For the body of a request.
    pub(crate) body_timeout: Duration,
    /// Connections at a time.
    pub(crate) max_connections: usize,
}

/// Connections by what became of them, since start unless named otherwise.
#[derive(Debug, Default)]
pub(crate) struct HttpStats {
    /// Open now, WebSockets left out.
    pub(crate) open: AtomicU64,
    /// Accepted.
    pub(crate) accepted: AtomicU64,
    /// Closed at once because there were too many.
    pub(crate) refused: AtomicU64,
    /// Closed because the head of a request took too long, or none came.
    pub(crate) header_timeouts: AtomicU64,
    /// Requests whose body took too long.
    pub(crate) body_timeouts: AtomicU64,
}

/// The bounds of all listeners together.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    limits: HttpLimits,
    slots: Arc<Semaphore>,
    stats: Arc<HttpStats>,
}

impl Http {
    /// Listeners with these limits.
    pub(crate) fn new(limits: HttpLimits) -> Self {
        let slots = limits.max_connections.min(Semaphore::MAX_PERMITS);
        Self { limits, slots: Arc::new(Semaphore::new(slots)), stats: Arc::default() }
    }

    /// What was counted.
    pub(crate) fn stats(&self) -> &Arc<HttpStats> {
        &self.stats
    }

    /// Serves `app` until `stop` is cancelled and the connections that answer have done so.
    pub(crate) async fn serve(self, listener: TcpListener, app: Router, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(slot) = self.take_slot() {
                        let connection = Connection { peer, http: self.clone(), slot };
                        connections.spawn(connection.run(stream, app.clone(), stop.clone()));
                    }
                }
                Err(error) => self.accept_failed(&error).await,
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    fn take_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.stats.accepted.fetch_add(1, Ordering::Relaxed);
        let slot = self.slots.clone().try_acquire_owned().ok();
        if slot.is_none() {
            self.stats.refused.fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    async fn accept_failed(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        // The client was faster: nothing is wrong here.
        if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            tracing::error!(%error, "cannot accept HTTP connections");
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// One accepted connection.
struct Connection {
    peer: SocketAddr,
    http: Http,
    slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, app: Router, stop: CancellationToken) {
        let Self { peer, http, slot } = self;
        let Http { limits, stats, .. } = http;
        let _open = Open::count(stats.clone());
        // Small messages that follow each other must not wait for an acknowledgement (RFC 896).
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (asked, stats) = (asked.clone(), stats.clone());
            move |request: hyper::Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                let mut request = request.map(|body| bounded(body, limits.body_timeout, &stats));
                request.extensions_mut().insert(ConnectInfo(peer));
                app.clone().oneshot(request)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle_timeout)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let mut first_request = std::pin::pin!(sleep(limits.header_timeout));
        let (mut waiting, mut stopping) = (true, false);
        let timed_out = loop {
            tokio::select! {
                result = connection.as_mut() => break result.is_err_and(|error| error.is_timeout()),
                () = first_request.as_mut(), if waiting => {
                    waiting = false;
                    if !asked.load(Ordering::Relaxed) {
                        break true;
                    }
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if timed_out {
            stats.header_timeouts.fetch_add(1, Ordering::Relaxed);
        }
        drop(slot);
    }
}

/// The body of a request, which fails when it has not come by then.
fn bounded(body: Incoming, within: Duration, stats: &Arc<HttpStats>) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    let deadline = Instant::now() + within;
    let stats = stats.clone();
    let chunks = stream::unfold(Some(Body::new(body).into_data_stream()), move |chunks| {
        let stats = stats.clone();
        async move {
            let mut chunks = chunks?;
            match timeout_at(deadline, chunks.next()).await {
                Ok(chunk) => Some((chunk?, Some(chunks))),
                Err(late) => {
                    stats.body_timeouts.fetch_add(1, Ordering::Relaxed);
                    Some((Err(axum::Error::new(late)), None))
                }
            }
        }
    });
    Body::from_stream(chunks)
}

/// Counts an open connection for as long as it lives.
struct Open(Arc<HttpStats>);

impl Open {
    fn count(stats: Arc<HttpStats>) -> Self {
        stats.open.fetch_add(1, Ordering::Relaxed);
        Self(stats)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::extract::Request;
    use axum::routing::any;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Nobody waits for so long.
    const NEVER: Duration = Duration::from_secs(3600);

    const LIMITS: HttpLimits = HttpLimits {
        header_timeout: NEVER,
        idle_timeout: NEVER,
        body_timeout: NEVER,
        max_connections: 10,
    };

    struct Server {
        address: SocketAddr,
        http: Http,
        stop: CancellationToken,
    }

    impl Server {
        /// Answers with the length of the body, or 400 if it does not come.
        async fn start(limits: HttpLimits) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let answer = |request: Request| async {
                match to_bytes(request.into_body(), 1 << 20).await {
                    Ok(body) => Ok(format!("{} bytes", body.len())),
                    Err(_) => Err(hyper::StatusCode::BAD_REQUEST),
                }
            };
            let (http, stop) = (Http::new(limits), CancellationToken::new());
            let app = Router::new().fallback(any(answer));
            tokio::spawn(http.clone().serve(listener, app, stop.clone()));
            Self { address, http, stop }
        }

        async fn connect(&self, text: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.expect("it listens");
            stream.write_all(text.as_bytes()).await.expect("written");
            stream
        }

        fn count(&self, counter: impl Fn(&HttpStats) -> &AtomicU64) -> u64 {
            counter(&self.http.stats).load(Ordering::Relaxed)
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.stop.cancel();
        }
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn a_client_that_does_not_say_what_it_wants_is_cut_off() {
        let limits = HttpLimits { header_timeout: Duration::from_millis(50), ..LIMITS };
        let server = Server::start(limits).await;
        for head in ["", "GET / HTTP/1.1\r\nhost: a\r\nx-drip: "] {
            assert_eq!(rest(server.connect(head).await).await, "");
        }
        assert_eq!(server.count(|stats| &stats.header_timeouts), 2);
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed() {
        let limits = HttpLimits { idle_timeout: Duration::from_millis(50), ..LIMITS };
        let server = Server::start(limits).await;
        let answer = rest(server.connect("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await).await;
        assert!(answer.ends_with("0 bytes"), "{answer}");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let limits = HttpLimits { body_timeout: Duration::from_millis(50), ..LIMITS };
        let server = Server::start(limits).await;
        let whole =
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
        let answer = rest(server.connect(whole).await).await;
        assert!(answer.ends_with("3 bytes"), "{answer}");
        let answer = rest(server.connect(&whole[..whole.len() - 1]).await).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(server.count(|stats| &stats.body_timeouts), 1);
    }

    #[tokio::test]
    async fn more_connections_than_allowed_are_closed_at_once() {
        let server = Server::start(HttpLimits { max_connections: 1, ..LIMITS }).await;
        let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut first = server.connect(request).await;
        let mut status = [0; 12];
        first.read_exact(&mut status).await.expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 200");
        assert_eq!(rest(server.connect("").await).await, "");
        assert_eq!(server.count(|stats| &stats.refused), 1);
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_idle_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (http, stop) = (Http::new(LIMITS), CancellationToken::new());
        let served = tokio::spawn(http.clone().serve(listener, Router::new(), stop.clone()));
        let mut idle = TcpStream::connect(address).await.expect("it listens");
        idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("written");
        let mut status = [0; 12];
        idle.read_exact(&mut status).await.expect("an answer");
        stop.cancel();
        served.await.expect("it ends");
    }
}

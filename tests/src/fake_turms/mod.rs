//! A stand-in for Turms: its admin API and its gateway, as far as the adapter meets them, with
//! their oddities. No Turms can run in these tests: it needs a sharded MongoDB, which no package
//! registry has. What is known of its behaviour was read in its source.

mod admin;
mod dates;
mod gateway;
mod state;
mod tokens;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State as Extract;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use state::{Command, Fault, Group, Member, State, User};
pub use tokens::{HMAC_KEY, jwt, statements, user_token};

/// Login name of the admin account.
pub const LOGIN: &str = "sfu";
/// Its password.
pub const PASSWORD: &str = "sfu password";

/// A running stand-in. Clones are the same.
#[derive(Clone)]
pub struct FakeTurms {
    shared: Arc<Shared>,
    /// Admin API.
    pub admin: SocketAddr,
    /// Gateway over WebSocket.
    pub websocket: SocketAddr,
    /// Gateway over TCP.
    pub tcp: SocketAddr,
    /// Script commands.
    pub control: SocketAddr,
}

struct Shared {
    state: Mutex<State>,
    bucket: Mutex<admin::Bucket>,
}

impl FakeTurms {
    /// Starts one on free loopback ports.
    ///
    /// # Panics
    /// There are no ports.
    pub async fn start() -> Self {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (admin, websocket, tcp, control) =
            (listen().await, listen().await, listen().await, listen().await);
        let address = |listener: &TcpListener| listener.local_addr().expect("bound");
        let fake = Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                bucket: Mutex::new(admin::Bucket::full()),
            }),
            admin: address(&admin),
            websocket: address(&websocket),
            tcp: address(&tcp),
            control: address(&control),
        };
        serve(admin, admin::router(fake.clone()));
        serve(websocket, gateway::router(fake.clone()));
        serve(control, control_router(fake.clone()));
        tokio::spawn(gateway::serve_tcp(fake.clone(), tcp));
        fake
    }

    /// What it knows, to look at and to change.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out script commands.
    ///
    /// # Panics
    /// A command is none.
    pub fn script(&self, commands: &Value) {
        let commands: Vec<Command> =
            serde_json::from_value(commands.clone()).expect("script commands");
        for command in commands {
            self.lock().apply(command);
        }
    }

    fn take_token(&self) -> bool {
        self.shared.bucket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn serve(listener: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(listener, router).await });
}

fn control_router(fake: FakeTurms) -> Router {
    Router::new()
        .route("/script", post(run_script))
        .route("/state", get(show_state))
        .with_state(fake)
}

async fn run_script(
    Extract(fake): Extract<FakeTurms>,
    Json(commands): Json<Vec<Command>>,
) -> Json<Value> {
    for command in commands {
        fake.lock().apply(command);
    }
    Json(json!({}))
}

async fn show_state(Extract(fake): Extract<FakeTurms>) -> Json<Value> {
    let state = fake.lock();
    Json(json!({
        "messages": state.messages,
        "requests": state.requests,
        "rate_limited": state.rate_limited,
        "refused": state.refused,
        "logins": state.logins,
        "roles": state.roles,
        "admins": state.admins,
    }))
}

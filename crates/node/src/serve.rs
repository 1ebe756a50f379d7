//! The server: builds the engine, the rooms above it and the HTTP face above those, says that it is
//! ready, and takes all of it down again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use sluice_control::{
    Limits, LowPower, ManagerConfig, MediaEngine, Revocations, RoomConfig, RoomManager, TurnSecret,
    WebhookEvent,
};
use sluice_engine::api::Event;
use sluice_engine::{
    CongestionConfig, DataLatency, Engine, EngineConfig, MAX_WORKERS, PlayoutDelayRange,
    UdpPorts as EnginePorts,
};
use sluice_proto as proto;
use sluice_signal::token::ApiKeys;
use sluice_signal::{
    Agents, AgentsConfig, EVENT_QUEUE, Probe, SignalConfig, SignalServer, Webhooks,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::addresses;
use crate::config::{Config, Quality, TurnLogin};
use crate::debug::{self, Debug};
use crate::http::Http;
use crate::metrics::{self, Metrics};
use crate::pages;
use crate::shutdown::Shutdown;
use crate::status::{NodeLimits, Status};
use crate::tcp_only::TcpOnly;
use crate::turms::{self, TurmsNode};

/// How long clients have to read their leave message before their sockets are closed.
const FAREWELL: Duration = Duration::from_secs(3);

/// In `state_dir`: tokens that were taken back.
const REVOCATIONS_FILE: &str = "revocations.jsonl";

/// Runs the server until a signal ends it.
///
/// # Errors
/// A port is taken, no address to advertise is known, or a thread cannot be started.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    for (key, reason) in &config.without_effect {
        tracing::warn!(key, reason, "configuration key has no effect");
    }
    for problem in &config.unknown {
        tracing::warn!(problem, "ignored, because strictness is disabled");
    }
    let (engine, events) = start_engine(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(control_threads())
        .thread_name("control")
        .build()
        .context("starting the control plane")?;
    let result = runtime.block_on(serve(config, engine.clone(), events));
    engine.shutdown();
    // Tasks that still wait for a client end with the runtime.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Threads of the control plane: one for two cores. Media has a thread on every core; more threads
/// here would mostly wake each other.
fn control_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

async fn serve(
    config: &Config,
    engine: Engine,
    events: mpsc::Receiver<Event>,
) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::listen().context("listening to signals")?;
    let listeners = bind(&config.http.addresses).await?;
    let node_id = node_id();
    let keys = api_keys(config);
    let webhooks = Webhooks::new(config.webhook.clone(), keys.clone())?;
    let (agent_events, for_agents) = mpsc::channel(EVENT_QUEUE);
    let mut observers = vec![agent_events];
    if webhooks.has_receivers() {
        let (room_events, for_webhooks) = mpsc::channel(EVENT_QUEUE);
        observers.push(room_events);
        tokio::spawn(webhooks.clone().run(for_webhooks));
    }
    let (turms_events, for_turms) = mpsc::channel(turms::EVENT_QUEUE);
    if config.turms.is_some() {
        observers.push(turms_events);
    }
    let rooms = room_manager(config, &engine, &node_id, observers)?;
    tokio::spawn(rooms.clone().run_events(events));
    tokio::spawn(crate::memory::give_back());
    let agents = Agents::start(rooms.clone(), for_agents, agents_config(config, &rooms), keys);
    let stop = CancellationToken::new();
    let limits = NodeLimits {
        num_tracks: config.limit.num_tracks,
        bytes_per_sec: config.limit.bytes_per_sec,
    };
    let status = Status::watch(engine.clone(), limits, stop.clone());
    let turms = match config.turms.clone() {
        Some(turms) => Some(TurmsNode::start(turms, rooms.clone(), api_keys(config), for_turms)?),
        None => None,
    };
    let signal = SignalConfig {
        gate: turms.as_ref().map(TurmsNode::gate),
        ..signal_config(config, &agents, &status, &stop)
    };
    let signal = SignalServer::new(rooms.clone(), signal);
    let debug = Debug::new(debug::Sources {
        engine: engine.clone(),
        rooms: rooms.clone(),
        status,
        keys: api_keys(config),
        node_id: node_id.clone(),
        region: config.region.clone(),
    });
    let mut app = signal.router().merge(debug.router());
    if config.pages {
        app = app.merge(pages::router(config.keys.development()));
    }
    if let Some(turms) = &turms {
        app = turms.router().fallback_service(app);
    }
    let http = Http::new(config.http.limits);
    let mut servers = JoinSet::new();
    if let Some(prometheus) = &config.prometheus {
        let metrics = Metrics {
            engine: engine.clone(),
            rooms: rooms.clone(),
            signal: signal.stats().clone(),
            http: http.stats().clone(),
            webhooks: webhooks.stats().clone(),
            agents: agents.stats().clone(),
            node_id: node_id.clone(),
            login: prometheus.login.clone(),
            turms: turms.as_ref().map(TurmsNode::stats),
        };
        let address = config.http.addresses[0].ip();
        let listener = TcpListener::bind((address, prometheus.port))
            .await
            .with_context(|| format!("`prometheus.port` {}", prometheus.port))?;
        // Its own bound: whoever crowds the public listener must not blind the operator.
        let own = Http::new(config.http.limits);
        servers.spawn(own.serve(listener, metrics::router(metrics), stop.clone()));
    }
    if let Some(port) = config.debug_port {
        let address = SocketAddr::new(config.http.addresses[0].ip(), port);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("`debug_handler.port` {port}"))?;
        let own = Http::new(config.http.limits);
        servers.spawn(own.serve(listener, debug.router(), stop.clone()));
    }
    // Last: whoever gets an answer here finds the other ports open too.
    for listener in listeners {
        servers.spawn(http.clone().serve(listener, app.clone(), stop.clone()));
    }
    tracing::info!(node = node_id, workers = engine.workers(), region = config.region, "started");
    announce(config, &engine);

    shutdown.first().await;
    tracing::info!("ending: participants are told to leave (a second signal ends at once)");
    let farewell = async {
        stop.cancel();
        rooms.shutdown().await;
        webhooks.drain(FAREWELL).await;
        // Servers end when their last connection does.
        let _ =
            tokio::time::timeout(FAREWELL, async { while servers.join_next().await.is_some() {} })
                .await;
    };
    tokio::select! {
        () = farewell => tracing::info!("ended"),
        () = shutdown.second() => tracing::warn!("ended at once"),
    }
    Ok(())
}

fn start_engine(config: &Config) -> anyhow::Result<(Engine, mpsc::Receiver<Event>)> {
    let advertised = addresses::advertised(&config.rtc)?;
    let udp = match config.rtc.udp_ports {
        Some(ports) if ports.first == ports.last => EnginePorts::Shared(ports.first),
        Some(ports) => EnginePorts::PerWorker { first: ports.first, last: ports.last },
        // `rtc.force_tcp`: bound, because the engine always has one, and never advertised.
        None => EnginePorts::Shared(0),
    };
    let engine_config = EngineConfig {
        workers: worker_count(config.workers),
        pin_workers: config.pin_workers,
        bind: addresses::to_bind(&advertised),
        udp,
        tcp_port: config.rtc.tcp_port,
        advertised,
        egress_hold: config.rtc.egress_hold,
        data_latency: DataLatency {
            lossy: config.rtc.lossy_latency,
            data_track: config.rtc.data_track_latency,
        },
        congestion: config.rtc.congestion_control.map(|control| CongestionConfig {
            allow_pause: control.allow_pause,
            min_channel_bps: control.min_channel_capacity,
            ..CongestionConfig::default()
        }),
        media: config.media,
        room_affinity: config.room_affinity,
        ..EngineConfig::default()
    };
    Engine::start(engine_config)
        .context("starting the media engine (ports are `rtc.udp_port` and `rtc.tcp_port`)")
}

/// What the operator asked for, or a worker per core.
fn worker_count(configured: usize) -> u8 {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = if configured == 0 { cores() } else { configured };
    u8::try_from(wanted).unwrap_or(MAX_WORKERS).clamp(1, MAX_WORKERS)
}

fn room_manager(
    config: &Config,
    engine: &Engine,
    node_id: &str,
    observers: Vec<mpsc::Sender<Arc<WebhookEvent>>>,
) -> anyhow::Result<RoomManager> {
    let defaults = RoomConfig::default();
    let enabled_codecs = match config.room.enabled_codecs.as_slice() {
        [] => defaults.enabled_codecs,
        mimes => mimes
            .iter()
            .map(|mime| proto::Codec { mime: mime.clone(), ..Default::default() })
            .collect(),
    };
    let room = RoomConfig {
        node_id: node_id.to_owned(),
        region: config.region.clone(),
        server_version: defaults.server_version,
        ice_servers: ice_servers(config),
        turn_secrets: turn_secrets(config),
        enabled_codecs,
        empty_timeout: config.room.empty_timeout,
        departure_timeout: config.room.departure_timeout,
        max_participants: config.room.max_participants,
        enable_remote_unmute: config.room.enable_remote_unmute,
        active_red_encoding: config.room.active_red_encoding,
        audio_update_interval: config.media.audio_levels.interval,
        low_power: LowPower {
            max_quality: match config.room.low_power_quality {
                Quality::Low => proto::VideoQuality::Low,
                Quality::Medium => proto::VideoQuality::Medium,
                Quality::High => proto::VideoQuality::High,
            },
            max_fps: config.room.low_power_fps,
        },
        playout_delay: config
            .room
            .playout_delay
            .map(|(min_ms, max_ms)| PlayoutDelayRange { min_ms, max_ms }),
        dynacast_pause_delay: config.room.dynacast_pause_delay,
        codec_regression_threshold: config.room.codec_regression_threshold,
        enable_data_tracks: config.room.enable_data_tracks,
        enable_participant_data_blob: config.room.enable_participant_data_blob,
        allow_tcp_fallback: config.rtc.allow_tcp_fallback,
        sync_streams: config.room.sync_streams,
        reconnect_on_publication_error: config.rtc.reconnect_on_publication_error,
        reconnect_on_subscription_error: config.rtc.reconnect_on_subscription_error,
        update_batch_target_size: config.room.update_batch_target_size,
        limits: limits(config),
    };
    let manager = ManagerConfig {
        room: Arc::new(room),
        auto_create: config.room.auto_create,
        presets: config.room_presets.clone(),
        observers,
        revocations: Arc::new(revocations(config)?),
    };
    let media: Arc<dyn MediaEngine> = if config.rtc.force_tcp {
        Arc::new(TcpOnly(engine.clone()))
    } else {
        Arc::new(engine.clone())
    };
    Ok(RoomManager::new(media, manager))
}

/// Tokens that were taken back, those before a restart included if there is a place for them.
fn revocations(config: &Config) -> anyhow::Result<Revocations> {
    match &config.state_dir {
        None => Ok(Revocations::default()),
        Some(directory) => {
            let path = directory.join(REVOCATIONS_FILE);
            let context = || format!("`state_dir`: {}", path.display());
            std::fs::create_dir_all(directory).with_context(context)?;
            Revocations::open(&path).with_context(context)
        }
    }
}

fn ice_servers(config: &Config) -> Vec<proto::IceServer> {
    let stun = config.rtc.stun_servers.iter().map(|server| proto::IceServer {
        urls: vec![format!("stun:{}", server.trim_start_matches("stun:"))],
        ..Default::default()
    });
    let turn = config.rtc.turn_servers.iter().filter_map(|server| match &server.login {
        TurnLogin::Fixed { username, credential } => Some(proto::IceServer {
            urls: vec![server.url.clone()],
            username: username.clone(),
            credential: credential.expose().to_owned(),
        }),
        TurnLogin::Shared { .. } => None,
    });
    stun.chain(turn).collect()
}

fn turn_secrets(config: &Config) -> Vec<TurnSecret> {
    let servers = config.rtc.turn_servers.iter();
    servers
        .filter_map(|server| match &server.login {
            TurnLogin::Shared { secret, ttl } => Some(TurnSecret {
                url: server.url.clone(),
                secret: secret.expose().to_owned(),
                ttl: *ttl,
            }),
            TurnLogin::Fixed { .. } => None,
        })
        .collect()
}

fn limits(config: &Config) -> Limits {
    let limit = &config.limit;
    Limits {
        max_metadata_size: limit.max_metadata,
        max_attributes_size: limit.max_attributes,
        max_room_name_length: limit.max_room_name,
        max_participant_identity_length: limit.max_identity,
        max_participant_name_length: limit.max_name,
        max_data_blob_key_length: limit.max_data_blob_key,
        max_data_blobs_size: limit.max_data_blobs,
        max_data_track_custom_encoding_length: limit.max_custom_encoding,
        subscription_limit_video: limit.subscriptions_video,
        subscription_limit_audio: limit.subscriptions_audio,
    }
}

fn signal_config(
    config: &Config,
    agents: &Agents,
    status: &Status,
    stop: &CancellationToken,
) -> SignalConfig {
    let (health, stop, admission) = (status.clone(), stop.clone(), status.clone());
    SignalConfig {
        keys: api_keys(config),
        limits: limits(config),
        max_message_size: config.limit.signal_message,
        agents: Some(agents.clone()),
        max_body: config.limit.max_request_body,
        max_agent_message_size: config.limit.agent_signal_message,
        health: Probe::new(move || match stop.is_cancelled() {
            true => Some("the node is shutting down".into()),
            false => health.unhealthy(),
        }),
        admission: Probe::new(move || admission.exceeded_limit().map(str::to_owned)),
        gate: None,
    }
}

fn api_keys(config: &Config) -> ApiKeys {
    ApiKeys::new(config.keys.iter().map(|(key, secret)| (key, secret.expose())))
}

fn agents_config(config: &Config, rooms: &RoomManager) -> AgentsConfig {
    AgentsConfig { server_info: rooms.server_info(), target_load: config.target_load }
}

async fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listening on {address} (`port` and `bind_addresses` choose another)")
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// LiveKit's form: a prefix and twelve letters or digits.
fn node_id() -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    let tail = (0..12).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]));
    format!("ND_{}", tail.collect::<String>())
}

/// The one line that says where the server is and what to do next.
fn announce(config: &Config, engine: &Engine) {
    let address = address(config);
    let call = match config.pages && config.keys.development().is_some() {
        true => format!("For a call, open http://{address}{} in two tabs. ", pages::MEET_PATH),
        false => String::new(),
    };
    let dev = if config.development { "--dev " } else { "" };
    println!(
        "sluice {} is ready at ws://{address} ({} workers, media on {}). {call}Make a token: `sluice \
         {dev}create-token --room demo --identity me`. Guide: README.md",
        env!("CARGO_PKG_VERSION"),
        engine.workers(),
        media_ports(config),
    );
}

/// Where a client on this machine finds the HTTP listener.
fn address(config: &Config) -> SocketAddr {
    let address = config.http.addresses[0];
    let host = match (address.ip(), config.rtc.node_ips.first()) {
        (ip, Some(node_ip)) if ip.is_unspecified() => *node_ip,
        (IpAddr::V4(ip), None) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (ip, _) => ip,
    };
    SocketAddr::new(host, address.port())
}

fn media_ports(config: &Config) -> String {
    let mut ports = Vec::new();
    if let Some(udp) = config.rtc.udp_ports {
        let last = if udp.first == udp.last { String::new() } else { format!("-{}", udp.last) };
        ports.push(format!("UDP {}{last}", udp.first));
    }
    if let Some(tcp) = config.rtc.tcp_port {
        ports.push(format!("TCP {tcp}"));
    }
    ports.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_stay_within_what_a_ufrag_can_name() {
        assert_eq!(worker_count(3), 3);
        assert_eq!(worker_count(1000), MAX_WORKERS);
        assert!(worker_count(0) >= 1);
    }
}

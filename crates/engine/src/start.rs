//! Binds the sockets and starts the threads of an engine.

use tokio::sync::mpsc;

use crate::api::Event;
use crate::config::EngineConfig;
use crate::engine::{Shared, StartError};

pub(crate) fn start(config: EngineConfig) -> Result<(Shared, mpsc::Receiver<Event>), StartError> {
    let _ = config;
    Err(StartError::Config("not built yet"))
}

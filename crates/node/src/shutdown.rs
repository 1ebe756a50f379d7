//! Signals that end the server: the first asks, the second insists.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGQUIT of this process.
pub(crate) struct Shutdown {
    signals: [Signal; 3],
}

impl Shutdown {
    /// Takes over the signals from their default actions.
    ///
    /// # Errors
    /// The system refuses the handler.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
        let [interrupt, terminate, quit] = kinds.map(signal);
        Ok(Self { signals: [interrupt?, terminate?, quit?] })
    }

    /// Waits for the first signal.
    pub(crate) async fn first(&mut self) {
        self.next().await;
    }

    /// Waits for another one.
    pub(crate) async fn second(&mut self) {
        self.next().await;
    }

    async fn next(&mut self) {
        let [interrupt, terminate, quit] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

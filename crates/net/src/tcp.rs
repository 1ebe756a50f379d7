//! One ICE-TCP connection: RFC 4571 frames in, frames out through a bounded buffer. A reader that
//! is too slow loses whole frames, like a full link, and never makes the sender wait.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use mio::{Interest, Registry, Token};

use crate::framing::{FrameDecoder, FrameError, encode_frame};

/// Bytes that may wait for a slow reader: 400 ms at 10 Mbit/s.
const MAX_OUTBOUND_BYTES: usize = 512 << 10;

/// Bytes kept allocated while nothing waits.
const IDLE_OUTBOUND_BYTES: usize = 16 << 10;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// The stream is out of step.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// See the module.
#[derive(Debug)]
pub struct TcpConn {
    stream: mio::net::TcpStream,
    remote: SocketAddr,
    decoder: FrameDecoder,
    outbound: Vec<u8>,
    /// Bytes of `outbound` that are written already.
    written: usize,
}

impl TcpConn {
    /// Takes over a connected stream, non-blocking, whose peer may send frames up to
    /// `max_frame` bytes. `received` was read from it already.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn new(stream: TcpStream, received: &[u8], max_frame: usize) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let remote = stream.peer_addr()?;
        let mut decoder = FrameDecoder::new(max_frame);
        decoder.extend(received);
        let stream = mio::net::TcpStream::from_std(stream);
        Ok(Self { stream, remote, decoder, outbound: Vec::new(), written: 0 })
    }

    /// Address of the peer.
    pub fn remote_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Adds the connection to a poll.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Removes the connection from a poll.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.stream)
    }

    /// Reads once. `Ok(false)` when nothing waits.
    ///
    /// # Errors
    /// The connection is over.
    pub fn read(&mut self) -> Result<bool, TcpError> {
        loop {
            match self.stream.read(self.decoder.spare()) {
                Ok(0) => return Err(TcpError::Closed),
                Ok(len) => {
                    self.decoder.filled(len);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next whole frame of what was read.
    ///
    /// # Errors
    /// The connection is over.
    pub fn next_frame(&mut self) -> Result<Option<&mut [u8]>, TcpError> {
        Ok(self.decoder.next_frame()?)
    }

    /// Queues a frame; [`flush`](Self::flush) sends it. False when it was dropped because the
    /// reader is too slow, or it is too long for a frame.
    pub fn send(&mut self, packet: &[u8]) -> bool {
        if self.outbound.len() - self.written + packet.len() > MAX_OUTBOUND_BYTES {
            return false;
        }
        encode_frame(packet, &mut self.outbound)
    }

    /// Writes what waits, as far as the kernel takes it.
    ///
    /// # Errors
    /// The connection is over.
    pub fn flush(&mut self) -> Result<(), TcpError> {
        while self.written < self.outbound.len() {
            match self.stream.write(&self.outbound[self.written..]) {
                Ok(0) => return Err(TcpError::Closed),
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.reclaim();
        Ok(())
    }

    /// Bytes that wait for the peer.
    pub fn pending(&self) -> usize {
        self.outbound.len() - self.written
    }

    fn reclaim(&mut self) {
        if self.written == self.outbound.len() {
            self.outbound.clear();
            self.outbound.shrink_to(IDLE_OUTBOUND_BYTES);
            self.written = 0;
        } else if self.written > MAX_OUTBOUND_BYTES / 2 {
            self.outbound.drain(..self.written);
            self.written = 0;
        }
    }
}

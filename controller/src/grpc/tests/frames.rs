//! A peer that writes HTTP/2 by hand: it says what no client would, and leaves
//! unanswered what every client answers.

use prost::Message as _;
use rootstock_proto::v1::{self, node_message::Kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::setup::{Agent, soon};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_HEADERS: u8 = 4;

/// The error codes of RFC 9113 that a peer is told.
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The code of a frame that ends a stream or the connection.
    pub(super) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub(super) struct Peer(TlsStream<TcpStream>);

impl Peer {
    /// A connection on which HTTP/2 has begun.
    pub(super) async fn of(agent: &Agent) -> Self {
        let mut peer = Self(soon(agent.tls()).await.unwrap());
        peer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        peer.send(SETTINGS, 0, 0, &[]).await;
        peer
    }

    /// Writes bytes as they are. A connection that the server has closed takes
    /// what it likes: what came of it is read.
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let written = soon(self.0.write_all(bytes)).await;
        tracing::trace!(?written);
        let _ = soon(self.0.flush()).await;
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload)).await;
    }

    /// Opens a stream of `Fleet.Sync`.
    pub(super) async fn open(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, &headers()).await;
    }

    /// Says a message on an open stream.
    pub(super) async fn say(&mut self, stream: u32, kind: Kind) {
        let message = v1::NodeMessage { kind: Some(kind) }.encode_to_vec();
        let mut data = vec![0];
        data.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        data.extend(message);
        self.send(DATA, 0, stream, &data).await;
    }

    /// Lets the server send so many more bytes, on the connection or a stream.
    pub(super) async fn allow(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()).await;
    }

    /// The next frame that is about a stream or the end; none after the end.
    pub(super) async fn hear(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            soon(self.0.read_exact(&mut head)).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            soon(self.0.read_exact(&mut payload)).await.ok()?;
            if ![SETTINGS, PING, WINDOW_UPDATE].contains(&head[3]) {
                return Some(Frame { kind: head[3], stream, payload });
            }
        }
    }

    /// The first frame of that kind, if one comes before the end.
    pub(super) async fn hear_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.hear().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What gRPC needs, with every name and value spelled out.
pub(super) fn headers() -> Vec<u8> {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/rootstock.v1.Fleet/Sync"),
        (":authority", "rs-one.test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .into_iter()
    .flat_map(|(name, value)| header(name, value))
    .collect()
}

/// One header, of less than 127 bytes each way, that no table remembers.
pub(super) fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

//! Connections: TLS on a port of the system's choice, HTTP/1.1 and HTTP/2 alike.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::api::Api;

/// A client that does not finish its handshake is not one.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests in flight may take at the end; watches end at once.
const DRAIN: Duration = Duration::from_secs(2);

/// The task that serves an API.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    /// Listens on 127.0.0.1 and serves until it is stopped or dropped.
    pub(super) async fn start(api: Arc<Api>, tls: rustls::ServerConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let stop = api.stop.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(Accept { listener, tls: TlsAcceptor::from(Arc::new(tls)), api }.run());
        Ok(Self { address, stop, tasks })
    }

    /// Ends watches, lets requests in flight finish, and closes.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::debug!(%error, "the server's task ended badly");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Accept {
    listener: TcpListener,
    tls: TlsAcceptor,
    api: Arc<Api>,
}

impl Accept {
    async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                // Cancel-safe: the token stays cancelled.
                () = self.api.stop.cancelled() => break,
                // Cancel-safe, as tokio says of accept.
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, self.tls.clone(), Arc::clone(&self.api)));
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: wait for some to close.
                        tracing::warn!(%error, "can't accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                // Cancel-safe, as tokio says of join_next. Ended connections are forgotten.
                Some(_) = connections.join_next() => {}
            }
        }
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::debug!("connections are cut at the end");
        }
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, api: Arc<Api>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small answers may be late");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
        Err(_) => return tracing::debug!("the handshake takes too long"),
    };
    let stop = api.stop.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        // Polled to its end below where the other arm wins.
        ended = connection.as_mut() => ended,
        // Cancel-safe: the token stays cancelled.
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "connection ended");
    }
}

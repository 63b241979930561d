//! Copies the bytes of a forwarded connection in both directions, counts them, and
//! applies the client's rates.

use std::io;
use std::pin::pin;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pump::RateLimit;
use crate::server::report::registry::forwards::Forward;
use crate::server::tunnel::rates::Rates;
use crate::ssh::server::stream::{ForwardInput, ForwardOutput};

/// Bytes copied at a time.
const CHUNK: usize = 32 * 1024;

/// Why one direction failed.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// The source failed.
    #[error("reading: {0}")]
    Reading(io::Error),
    /// The destination failed.
    #[error("writing: {0}")]
    Writing(io::Error),
}

/// The client's side of a connection after the client's end of data.
trait Client {
    /// Waits until the client has closed the channel.
    fn closed(&mut self) -> impl Future<Output = ()> + Send;
}

impl Client for ForwardInput {
    fn closed(&mut self) -> impl Future<Output = ()> + Send {
        ForwardInput::closed(self)
    }
}

/// Copies bytes in both directions until both have ended, one has failed, or the client
/// has closed the channel and everything that it sent is written.
pub(super) async fn carry(
    (from_client, to_client): (ForwardInput, ForwardOutput),
    stream: TcpStream,
    forward: &Forward,
    rates: &Rates,
) {
    // These fail only if the connection is gone, which a read reports; keepalives detect
    // a host that vanished.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_keepalive(true);
    let (from_here, to_here) = stream.into_split();
    let upload = async {
        let mut from_client = from_client;
        let count = |bytes| forward.uploaded(bytes);
        copy(&mut from_client, to_here, &rates.upload, count).await?;
        Ok::<_, Broken>(from_client)
    };
    let count = |bytes| forward.downloaded(bytes);
    let download = copy(from_here, to_client, &rates.download, count);
    if let Err(error) = both(upload, download).await {
        tracing::debug!(%error, "a forwarded connection ended");
    }
}

/// Runs both directions to the end of the connection. The upload returns the client
/// after its end of data, at the latest when the channel is closed.
async fn both<C: Client>(
    upload: impl Future<Output = Result<C, Broken>>,
    download: impl Future<Output = Result<(), Broken>>,
) -> Result<(), Broken> {
    let mut upload = pin!(upload);
    let mut download = pin!(download);
    let mut client = tokio::select! {
        uploaded = &mut upload => uploaded?,
        downloaded = &mut download => return match downloaded {
            // A closed channel cannot be written to, but data that the client sent before it
            // closed the channel must still be delivered.
            Ok(()) | Err(Broken::Writing(_)) => upload.await.map(drop),
            broken => broken,
        },
    };
    // The other side may stay silent for ever.
    tokio::select! {
        downloaded = download => downloaded,
        () = client.closed() => Ok(()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    limit: &RateLimit,
    count: impl Fn(usize),
) -> Result<(), Broken> {
    let mut buffer = vec![0; CHUNK];
    loop {
        limit.opened().await;
        let length = from.read(&mut buffer).await.map_err(Broken::Reading)?;
        let Some(data) = buffer.get(..length).filter(|data| !data.is_empty()) else {
            return to.shutdown().await.map_err(Broken::Writing);
        };
        limit.take(length);
        to.write_all(data).await.map_err(Broken::Writing)?;
        to.flush().await.map_err(Broken::Writing)?;
        count(length);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;
    use crate::pump::Rate;

    /// A client that closes its channel when it is told to.
    struct FakeClient(oneshot::Receiver<()>);

    impl Client for FakeClient {
        async fn closed(&mut self) {
            (&mut self.0).await.unwrap();
        }
    }

    fn client() -> (oneshot::Sender<()>, FakeClient) {
        let (close, closed) = oneshot::channel();
        (close, FakeClient(closed))
    }

    fn broken() -> io::Error {
        io::ErrorKind::BrokenPipe.into()
    }

    #[tokio::test(start_paused = true)]
    async fn the_close_of_the_channel_ends_what_is_silent() {
        let (close, client) = client();
        let mut carried = pin!(both(ready(Ok(client)), pending()));
        let day = Duration::from_secs(86400);
        let open = timeout(day, &mut carried).await;
        assert!(open.is_err(), "half of it goes on");
        close.send(()).unwrap();
        timeout(day, carried).await.expect("it stays").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_the_close_gets_there() {
        const TIME: Duration = Duration::from_secs(60);
        let start = Instant::now();
        let (_close, client) = client();
        let upload = async {
            sleep(TIME).await;
            Ok(client)
        };
        both(upload, ready(Err(Broken::Writing(broken()))))
            .await
            .unwrap();
        assert_eq!(start.elapsed(), TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_that_is_gone_ends_both_directions() {
        let upload = pending::<Result<FakeClient, Broken>>();
        let ended = both(upload, ready(Err(Broken::Reading(broken())))).await;
        assert!(matches!(ended, Err(Broken::Reading(_))));
        let (_close, client) = client();
        let ended = both(ready(Ok(client)), ready(Ok(()))).await;
        assert!(ended.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_forward_keeps_to_the_rate_that_it_shares() {
        let limit = RateLimit::fixed(Rate::new(1_000_000));
        let one = copy(
            tokio::io::repeat(1).take(500_000),
            tokio::io::sink(),
            &limit,
            |_| (),
        );
        let other = copy(
            tokio::io::repeat(2).take(500_000),
            tokio::io::sink(),
            &limit,
            |_| (),
        );
        let start = Instant::now();
        let (one, other) = tokio::join!(one, other);
        one.and(other).unwrap();
        let took = start.elapsed().as_secs_f64();
        assert!((0.9..=1.1).contains(&took), "{took}");
    }

    #[tokio::test]
    async fn the_end_of_one_direction_is_passed_on_and_the_other_goes_on() {
        let (client, server) = tokio::io::duplex(64);
        let (mut read, mut write) = tokio::io::split(client);
        let (from, to) = tokio::io::split(server);
        let counted = std::sync::atomic::AtomicUsize::new(0);
        let count = |bytes| {
            counted.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        };
        let echo = copy(from, to, &RateLimit::NONE, count);
        let said = async {
            write.write_all(&[7; 1000]).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let heard = async {
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.unwrap();
            all.len()
        };
        let (copied, (), heard) = tokio::join!(echo, said, heard);
        copied.unwrap();
        assert_eq!((heard, counted.into_inner()), (1000, 1000));
    }
}

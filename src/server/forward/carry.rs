//! The bytes of a forwarded connection: both ways, counted, within the client's
//! rates.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pump::RateLimit;
use crate::server::rates::Rates;
use crate::server::registry::forwards::Forward;

/// Bytes moved in one go.
const CHUNK: usize = 32 * 1024;

/// Carries bytes both ways until both directions have ended, or one failed.
pub(super) async fn carry<C>(channel: C, stream: TcpStream, forward: &Forward, rates: &Rates)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    // It fails only where the connection is gone, which reading tells.
    let _ = stream.set_nodelay(true);
    let (from_client, to_client) = tokio::io::split(channel);
    let (from_here, to_here) = stream.into_split();
    let Rates {
        upload, download, ..
    } = rates;
    let upload = copy(from_client, to_here, upload, |bytes| {
        forward.uploaded(bytes)
    });
    let download = copy(from_here, to_client, download, |bytes| {
        forward.downloaded(bytes)
    });
    if let Err(error) = tokio::try_join!(upload, download) {
        tracing::debug!(%error, "a forwarded connection ended");
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    limit: &RateLimit,
    count: impl Fn(usize),
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        limit.opened().await;
        let length = from.read(&mut buffer).await?;
        let Some(data) = buffer.get(..length).filter(|data| !data.is_empty()) else {
            return to.shutdown().await;
        };
        limit.take(length);
        to.write_all(data).await?;
        to.flush().await?;
        count(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pump::Rate;

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
        let start = tokio::time::Instant::now();
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

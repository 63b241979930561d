//! Limits the bytes per second: a token bucket around one side of a channel, or around
//! several channels of one client.
//!
//! Towards the peer it waits before frames are sent, so the queue in front of it decides
//! what goes next. From the peer it waits before the next read, and the channel's window
//! stops the peer.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::process::token_bucket::TokenBucket;
use crate::pump::{FrameSink, FrameSource, SendFailure};

/// The burst after a pause, in time; one message of any size may always go, and is
/// charged afterwards.
const BURST: Duration = Duration::from_millis(10);

/// The amount sent at once, in time: later packets are delayed by that.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Bytes per second, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// A rate; `None` for zero.
    pub fn new(bytes_per_second: u64) -> Option<Self> {
        NonZeroU64::new(bytes_per_second).map(Rate)
    }

    /// The time that `bytes` take.
    fn time(self, bytes: usize) -> Duration {
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(self.0.get());
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// The bytes that go in `time`; at least 1.
    pub fn bytes_in(self, time: Duration) -> usize {
        let bytes = u128::from(self.0.get()).saturating_mul(time.as_nanos()) / 1_000_000_000;
        usize::try_from(bytes.max(1)).unwrap_or(usize::MAX)
    }
}

/// A rate limit that can be replaced at run time, or no limit. Clones share one limit.
#[derive(Debug, Clone, Default)]
pub struct RateLimit(Option<Arc<Mutex<Limit>>>);

/// A limit and its bucket.
#[derive(Debug)]
struct Limit {
    rate: watch::Receiver<Option<Rate>>,
    bucket: TokenBucket,
}

impl RateLimit {
    /// No limit.
    pub const NONE: RateLimit = RateLimit(None);

    /// The latest value of `rate`; the last one stays when the sender is gone.
    pub fn new(rate: watch::Receiver<Option<Rate>>) -> Self {
        let bucket = TokenBucket::new(BURST);
        RateLimit(Some(Arc::new(Mutex::new(Limit { rate, bucket }))))
    }

    /// A constant limit; no limit for `None`.
    pub fn fixed(rate: Option<Rate>) -> Self {
        match rate {
            Some(rate) => RateLimit::new(watch::channel(Some(rate)).1),
            None => RateLimit::NONE,
        }
    }

    /// The current rate.
    pub fn now(&self) -> Option<Rate> {
        self.look(|limit| *limit.rate.borrow()).flatten()
    }

    /// Waits until a message may go.
    pub async fn opened(&self) {
        loop {
            let waiting = self.look(|limit| {
                let open = limit.is_open();
                (!open).then(|| (limit.bucket.due(), limit.rate.clone()))
            });
            let Some(Some((Some(due), mut rate))) = waiting else {
                return;
            };
            tokio::select! {
                () = sleep_until(due.into()) => {}
                Ok(()) = rate.changed() => {}
            }
        }
    }

    /// Counts `bytes` that were sent, however many.
    pub fn take(&self, bytes: usize) {
        self.look(|limit| limit.take(bytes));
    }

    /// Whether a message may go.
    fn is_open(&self) -> bool {
        self.look(Limit::is_open).unwrap_or(true)
    }

    fn look<R>(&self, look: impl FnOnce(&mut Limit) -> R) -> Option<R> {
        let limit = self.0.as_ref()?;
        let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
        Some(look(&mut limit))
    }
}

impl Limit {
    fn is_open(&mut self) -> bool {
        if self.rate.has_changed().unwrap_or(false) {
            self.rate.mark_unchanged();
            // The debt is in time by the old rate.
            self.bucket.clear();
        }
        self.rate.borrow().is_none() || self.bucket.is_open(Instant::now().into_std())
    }

    fn take(&mut self, bytes: usize) {
        let rate = *self.rate.borrow();
        match rate {
            Some(rate) => self
                .bucket
                .take(rate.time(bytes), Instant::now().into_std()),
            None => self.bucket.clear(),
        }
    }
}

/// One side of a channel, with a limit.
#[derive(Debug)]
pub struct Limited<T> {
    inner: T,
    limit: RateLimit,
}

impl<T> Limited<T> {
    /// Applies `limit` to `inner`.
    pub fn new(inner: T, limit: RateLimit) -> Self {
        Limited { inner, limit }
    }

    /// The wrapped side.
    #[cfg(test)]
    pub(in crate::pump) fn inner(&self) -> &T {
        &self.inner
    }
}

impl<T: FrameSource + Send> FrameSource for Limited<T> {
    async fn receive(&mut self) -> Option<Bytes> {
        self.limit.opened().await;
        let received = self.inner.receive().await?;
        self.limit.take(received.len());
        Some(received)
    }

    fn try_receive(&mut self) -> Option<Bytes> {
        if !self.limit.is_open() {
            return None;
        }
        let received = self.inner.try_receive()?;
        self.limit.take(received.len());
        Some(received)
    }
}

impl<T: FrameSink + Send> FrameSink for Limited<T> {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        self.limit.opened().await;
        let before: usize = frames.iter().map(Bytes::len).sum();
        let sent = self.inner.send_all(frames).await;
        let left: usize = frames.iter().map(Bytes::len).sum();
        let bytes = before.saturating_sub(left);
        self.limit.take(bytes);
        sent
    }

    fn at_once(&self) -> usize {
        let most = self.inner.at_once();
        match self.limit.now() {
            Some(rate) => rate.bytes_in(AT_ONCE).min(most),
            None => most,
        }
    }

    async fn ping(&self) -> Option<oneshot::Receiver<()>> {
        self.inner.ping().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests;

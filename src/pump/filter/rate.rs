//! How many bytes a second go through: a token bucket around either side of a
//! channel, or around several of one client.
//!
//! Towards the peer it waits before frames are handed over, so the queue in
//! front of it decides what goes next. From the peer it waits before more is
//! read, and the window of the channel holds the peer up.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::process::token_bucket::TokenBucket;
use crate::pump::{FrameSink, FrameSource, SendFailure};

/// What may go at once after a pause, in time; one message of any size may in any
/// case, and is paid for afterwards.
const BURST: Duration = Duration::from_millis(10);

/// What is handed over at once, in time: it delays what comes behind it by that.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Bytes a second, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// Takes any but zero.
    pub fn new(bytes_per_second: u64) -> Option<Self> {
        NonZeroU64::new(bytes_per_second).map(Rate)
    }

    /// How long `bytes` take.
    fn time(self, bytes: usize) -> Duration {
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(self.0.get());
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// How many bytes go in `time`; at least one.
    pub fn bytes_in(self, time: Duration) -> usize {
        let bytes = u128::from(self.0.get()).saturating_mul(time.as_nanos()) / 1_000_000_000;
        usize::try_from(bytes.max(1)).unwrap_or(usize::MAX)
    }
}

/// A limit that can be replaced while it is in force; none now, or none ever.
/// Whatever is held to clones of one goes through it together.
#[derive(Debug, Clone, Default)]
pub struct RateLimit(Option<Arc<Mutex<Limit>>>);

/// A limit, and what went through it.
#[derive(Debug)]
struct Limit {
    rate: watch::Receiver<Option<Rate>>,
    bucket: TokenBucket,
}

impl RateLimit {
    /// No limit.
    pub const NONE: RateLimit = RateLimit(None);

    /// What `rate` has, from time to time; the last one stays when its sender is gone.
    pub fn new(rate: watch::Receiver<Option<Rate>>) -> Self {
        let bucket = TokenBucket::new(BURST);
        RateLimit(Some(Arc::new(Mutex::new(Limit { rate, bucket }))))
    }

    /// One that does not change; none where there is no rate.
    pub fn fixed(rate: Option<Rate>) -> Self {
        match rate {
            Some(rate) => RateLimit::new(watch::channel(Some(rate)).1),
            None => RateLimit::NONE,
        }
    }

    /// As it is now.
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

    /// Counts `bytes` that went, as many as they are.
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
            // A debt is in the old one's time.
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

/// One side of a channel, held to a limit.
#[derive(Debug)]
pub struct Limited<T> {
    inner: T,
    limit: RateLimit,
}

impl<T> Limited<T> {
    /// Holds `inner` to `limit`.
    pub fn new(inner: T, limit: RateLimit) -> Self {
        Limited { inner, limit }
    }

    /// What is held to it.
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

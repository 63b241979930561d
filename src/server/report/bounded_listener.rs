//! How the server answers questions about itself: to few at once, and to none
//! for long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::process::accept::{Accept, accept};

/// Connections at once; others wait to be accepted.
const MOST: usize = 8;
/// How long one may take, from its beginning to its end.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Accepts and answers for ever. Dropping this ends all of it.
pub(super) async fn serve<L: Accept>(
    mut listener: L,
    answer: impl AsyncAnswer<L::Connection>,
) -> std::convert::Infallible {
    let places = Arc::new(Semaphore::new(MOST));
    let mut answers = JoinSet::new();
    loop {
        // It is never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        while answers.try_join_next().is_some() {}
        let answered = answer.answer(accept(&mut listener).await);
        answers.spawn(async move {
            if timeout(PATIENCE, answered).await.is_err() {
                tracing::debug!("somebody took too long to hear the answer");
            }
            drop(place);
        });
    }
}

/// What answers one connection.
pub trait AsyncAnswer<S> {
    /// Answers it.
    fn answer(&self, stream: S) -> impl Future<Output = ()> + Send + 'static;
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    /// Answers a byte by the same, and counts whom it answers at once.
    #[derive(Clone, Default)]
    struct Echo {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    struct Place(Arc<AtomicUsize>);

    impl Drop for Place {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl AsyncAnswer<DuplexStream> for Echo {
        fn answer(&self, mut stream: DuplexStream) -> impl Future<Output = ()> + Send + 'static {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            let place = Place(Arc::clone(&self.now));
            async move {
                if let Ok(byte) = stream.read_u8().await {
                    let _ = stream.write_u8(byte).await;
                }
                drop(place);
            }
        }
    }

    /// What comes in is sent to it.
    struct Incoming(mpsc::Receiver<io::Result<DuplexStream>>);

    impl Accept for Incoming {
        type Connection = DuplexStream;

        async fn try_accept(&mut self) -> io::Result<DuplexStream> {
            let next = self.0.recv().await;
            next.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_say_nothing_are_dropped_and_the_next_has_its_turn() {
        let (sender, receiver) = mpsc::channel(100);
        let echo = Echo::default();
        let service = tokio::spawn(serve(Incoming(receiver), echo.clone()));
        let mut silent = Vec::new();
        for _ in 0..2 * MOST {
            let (ours, theirs) = duplex(16);
            sender.send(Ok(theirs)).await.unwrap();
            silent.push(ours);
        }
        let failed = io::ErrorKind::OutOfMemory.into();
        sender.send(Err(failed)).await.unwrap();
        let (mut ours, theirs) = duplex(16);
        sender.send(Ok(theirs)).await.unwrap();
        let begin = Instant::now();
        ours.write_u8(7).await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), 7);
        let passed = begin.elapsed();
        assert!(
            passed >= 2 * PATIENCE && passed < 3 * PATIENCE,
            "{passed:?}"
        );
        assert_eq!(echo.most.load(Ordering::SeqCst), MOST);
        for mut stream in silent {
            assert!(stream.read_u8().await.is_err(), "it is closed");
        }
        service.abort();
        assert!(service.await.unwrap_err().is_cancelled());
    }
}

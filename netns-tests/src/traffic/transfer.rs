//! A TCP transfer of known bytes, which detects changed, duplicated and lost ones.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::lab::host::Host;

/// The longest permitted stall.
const STALLED: Duration = Duration::from_secs(20);
/// Bytes written and compared at once.
const BLOCK: usize = 64 * 1024;

/// Sends `megabytes` from `from` to `to` at `address`, and as many back at the same time; each
/// byte has to arrive unchanged.
pub fn both_ways(from: &Host, to: &Host, address: &str, megabytes: usize) -> Result<()> {
    let address: IpAddr = address.parse()?;
    let listener = to.in_network(|| Ok(TcpListener::bind(SocketAddr::new(address, 0))?))?;
    let target = listener.local_addr()?;
    let local = from.in_network(|| Ok(TcpStream::connect_timeout(&target, STALLED)?))?;
    let (remote, _) = listener.accept()?;
    exchange(&local, &remote, megabytes)
        .with_context(|| format!("between {} and {} ({address})", from.name(), to.name()))
}

/// Sends `megabytes` from one end of a connection to the other, and as many back at the same time;
/// each byte has to arrive unchanged.
pub fn exchange(local: &TcpStream, remote: &TcpStream, megabytes: usize) -> Result<()> {
    for stream in [local, remote] {
        stream.set_read_timeout(Some(STALLED))?;
        stream.set_write_timeout(Some(STALLED))?;
    }
    let blocks = megabytes * (1 << 20) / BLOCK;
    thread::scope(|scope| {
        let work = [
            scope.spawn(|| send(local, blocks, 1)),
            scope.spawn(|| compare(remote, blocks, 1)),
            scope.spawn(|| send(remote, blocks, 2)),
            scope.spawn(|| compare(local, blocks, 2)),
        ];
        let results = work.map(|thread| thread.join().expect("a thread panicked"));
        results.into_iter().collect::<Result<()>>()
    })
}

fn send(mut stream: &TcpStream, blocks: usize, seed: u64) -> Result<()> {
    let mut content = Content(seed);
    let mut block = vec![0; BLOCK];
    for number in 0..blocks {
        content.fill(&mut block);
        stream
            .write_all(&block)
            .with_context(|| format!("sending block {number} of {blocks}"))?;
    }
    Ok(())
}

fn compare(mut stream: &TcpStream, blocks: usize, seed: u64) -> Result<()> {
    let mut content = Content(seed);
    let (mut expected, mut block) = (vec![0; BLOCK], vec![0; BLOCK]);
    for number in 0..blocks {
        content.fill(&mut expected);
        stream
            .read_exact(&mut block)
            .with_context(|| format!("receiving block {number} of {blocks}"))?;
        let changed = expected
            .iter()
            .zip(&block)
            .position(|(one, other)| one != other);
        if let Some(place) = changed {
            bail!("byte {} is not as it was sent", number * BLOCK + place);
        }
    }
    ensure!(blocks > 0, "nothing was sent");
    Ok(())
}

/// Bytes that do not repeat: Marsaglia's xorshift64 ("Xorshift RNGs", 2003).
struct Content(u64);

impl Content {
    fn fill(&mut self, block: &mut [u8]) {
        for word in block.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_ne_bytes());
        }
    }
}

//! The netlink connection of this process: sends requests and turns the kernel's refusals into
//! errors. The modules below define the requests.

mod address;
mod bridge;
mod link;
mod neighbour;
mod odd_name;
mod parse;
mod route;

#[cfg(test)]
mod tests;

use std::io;

use futures_util::{Stream, TryStreamExt};
use nix::errno::Errno;
use rtnetlink::Handle;

use super::error::{NetError, Operation, Refusal};
use super::plan::facts::HostFacts;

pub use address::InterfaceAddress;
pub use bridge::{PortSettings, StationFacts};
pub use neighbour::NeighbourFacts;
pub use route::TunnelRoute;

/// An open rtnetlink socket in the network namespace of the thread that opened
/// it. It closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens the socket; a task of the current runtime serves it.
    ///
    /// Strict checking lets the kernel filter a dump; kernels before 4.20 lack it, so the callers
    /// filter again.
    pub fn open() -> Result<Self, NetError> {
        let (connection, handle, _messages) = rtnetlink::new_connection_with_strict_check()
            .or_else(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => Err(error),
                _ => rtnetlink::new_connection(),
            })
            .map_err(NetError::NoNetlink)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Links, addresses, routes and rules, both families, all tables.
    pub async fn facts(&self) -> Result<HostFacts, NetError> {
        Ok(HostFacts {
            links: self.links().await?,
            addresses: self.addresses(None).await?,
            routes: self.routes(None).await?.into(),
            rules: self.rules().await?,
            claimed: Vec::new(),
        })
    }
}

/// One request to the kernel, with what its errors name.
#[derive(Debug, Clone)]
struct Request {
    operation: Operation,
    object: String,
    ipv6: bool,
}

impl Request {
    fn new(operation: Operation, object: impl Into<String>) -> Self {
        Self {
            operation,
            object: object.into(),
            ipv6: false,
        }
    }

    /// Sets whether the object is an IPv6 one.
    fn ipv6(self, ipv6: bool) -> Self {
        Self { ipv6, ..self }
    }

    fn failed(&self, error: rtnetlink::Error) -> NetError {
        let (operation, object) = (self.operation, self.object.clone());
        if let rtnetlink::Error::NetlinkError(message) = &error
            && let Some(code) = message.code
        {
            let errno = Errno::from_raw(code.get().saturating_abs());
            let refusal = Refusal::new(errno, operation, self.ipv6);
            return NetError::Refused {
                operation,
                object,
                refusal,
            };
        }
        NetError::NoAnswer {
            operation,
            object,
            detail: match error {
                rtnetlink::Error::RequestFailed => "the netlink socket is closed".to_owned(),
                other => other.to_string(),
            },
        }
    }

    /// All answers to a dump request.
    async fn collect<T>(
        &self,
        answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
    ) -> Result<Vec<T>, NetError> {
        answers
            .try_collect()
            .await
            .map_err(|error| self.failed(error))
    }
}

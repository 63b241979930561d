//! Settings and their sources, as typed values. It does no I/O except reading configuration; the
//! rest of the program uses only the parsed values.

pub mod cidr;
pub mod congestion;
pub mod domain_name;
pub mod error;
pub mod forward_place;
pub mod invoker;
pub mod keys;
pub mod serve;
pub mod ssh;
pub(crate) mod toml_text;

pub use error::ConfigError;
pub use invoker::Invoker;
pub use ssh::args::{AddressFamily, SshArgs};
pub use ssh::destination::{Destination, JumpHop};
pub use ssh::options::{
    FingerprintHash, LogLevel, Proxy, RekeyLimit, RequestTty, SessionType, SshOptions,
    StrictHostKeyChecking,
};
pub use ssh::resolve::{print, resolve, resolve_hop, resolve_route};

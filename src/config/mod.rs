//! Settings: typed values, and where they come from. No I/O beyond reading
//! configuration; everything else in the program gets what is parsed here.

pub mod absolute_time;
pub mod authorized_keys;
mod base64;
pub mod cidr;
pub mod domain_name;
pub mod elevation;
pub mod error;
pub mod forward_place;
pub mod invoker;
mod invoker_agent;
mod invoker_files;
mod invoker_identity;
pub mod key_blob;
pub mod revocation_list;
pub mod serve;
pub mod source_pattern;
pub mod ssh_args;
mod ssh_config;
mod ssh_defaults;
pub mod ssh_destination;
mod ssh_g;
mod ssh_option_words;
pub mod ssh_options;
mod ssh_options_build;
pub(crate) mod ssh_pattern;
pub mod ssh_resolve;
mod ssh_syntax;
mod ssh_tokens;
mod ssh_value_reader;
mod ssh_values;
pub(crate) mod toml_text;
mod trusted_append;
pub mod trusted_file;
pub mod types;
mod wire_reader;

pub use error::ConfigError;
pub use invoker::Invoker;
pub use ssh_args::{AddressFamily, SshArgs};
pub use ssh_destination::{Destination, JumpHop};
pub use ssh_options::{
    FingerprintHash, LogLevel, Proxy, RekeyLimit, RequestTty, SessionType, SshOptions,
    StrictHostKeyChecking,
};
pub use ssh_resolve::{resolve, resolve_hop, resolve_route};

//! The changes of the tunnel's link and of its addresses, routes and settings.

pub mod address;
pub mod address_generation;
pub mod bridge;
pub mod group;
pub mod gso_size;
pub mod guarded_port;
pub mod mtu;
pub mod queue_length;
pub mod route;
pub mod sysctl;
pub mod up;

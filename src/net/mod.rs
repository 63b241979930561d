//! The state of this host: links, addresses, routes and sysctls; the plan of
//! what a tunnel needs of them, and the journal that takes it all back.
//!
//! ```text
//!   cidr, route_plan, addressing  what to ask for (pure; on address_range, facts)
//! ```

pub mod address_range;
pub mod addressing;
pub mod cidr;
pub mod facts;
pub mod route_plan;

//! Plans the changes of this host for a tunnel; pure functions on facts that were read beforehand.

pub mod addressing;
pub mod detour;
pub mod facts;
pub mod offered;
pub mod private_space;
pub mod route_plan;
pub(super) mod route_report;
pub mod surroundings;
pub mod ways;

//! From what a tunnel asks for to the changes of this host; pure, on facts read beforehand.

pub mod addressing;
pub mod facts;
pub mod private_space;
pub mod route_plan;
pub(super) mod route_report;
pub mod surroundings;
pub mod ways;

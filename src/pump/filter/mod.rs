//! Filters of the pump: who may send what, who may hear what, and how fast.

pub(super) mod egress;
pub(super) mod guard;
pub(super) mod rate;

//! The wire formats: packets, the frames around them, and the types of both.
//!
//! ```text
//!   frame     a packet in an SSH message or stream, control messages, the window's arithmetic
//!   packet    headers, offload (segment, coalesce), the guard that judges packets
//!   types     mode, unit, MTU, interface names: parsed once; sets of addresses
//! ```
//!
//! Pure: no I/O, no clock, no unsafe. Fuzz targets and benchmarks build it without SSH.

#![forbid(unsafe_code)]

pub mod frame;
pub mod packet;
pub mod types;

//! Forged frames and packets, a false router, and system calls or remote commands made to fail.

pub mod fault;
pub mod forge;
pub mod inject;
pub mod router;

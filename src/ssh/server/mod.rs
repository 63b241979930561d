//! The server's side of SSH connections: who comes in, and which channels they
//! ask for. What they may is decided elsewhere.

pub mod credential;

//! The guard of IP packets.

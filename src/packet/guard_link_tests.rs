//! The guard of Ethernet frames.

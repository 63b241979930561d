//! Scenarios of the limits on the peer and on the local user.

mod device_settings;
mod guard;
mod secrets;
mod setcap;
mod sudo;
mod unasked;
mod wire;

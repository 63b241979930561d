//! Scenarios of what each end lets the other, and its own user, do.

mod device_settings;
mod guard;
mod secrets;
mod setcap;
mod sudo;
mod unasked;
mod wire;

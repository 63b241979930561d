//! Scenarios against `sshvpn serve`.

mod bridge;
mod bridge_hostile;
mod check;
mod doors;
mod hostile;
mod keys;
mod life;
mod metrics;
mod path;
mod ssh;
mod units;
mod up;
mod user;

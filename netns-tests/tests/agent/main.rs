//! Scenarios by an agent that a stock sshd starts.

mod data;
mod hostile;
mod life;
mod limits;
mod push;
mod start;
mod undo;

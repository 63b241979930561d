//! Scenarios of `sshvpn up` to a stock sshd, and of its arguments.

mod bad_input;
mod command_line;
mod crowded;
mod hops;
mod link;
mod local_user;
mod oddities;
mod path;
mod remote_user;
mod subnet;
mod undo;
mod undo_matrix;
mod words;

//! Scenarios of `sshvpn up` to a stock sshd, and of its arguments.

mod bad_input;
mod command_line;
mod congestion;
mod crowded;
mod firewalls;
mod hops;
mod link;
mod local_user;
mod oddities;
mod path;
mod remote_user;
mod route_auto;
mod routing_table;
mod small_path;
mod subnet;
mod together;
mod undo;
mod undo_matrix;
mod words;

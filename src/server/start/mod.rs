//! What a start needs: a user of its own, the limits of the process, the changes on the host; and
//! `--check`, which looks at all of it.

pub mod check;
pub mod confinement;
pub mod host;
pub mod open_files;
pub mod own_user;

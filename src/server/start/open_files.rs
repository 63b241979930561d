//! Raises the limit of open files: each client takes several (connection, device,
//! forwards), and the usual limit is made for programs that use select(2).

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::serve::settings::LoginSettings;
use crate::process::message::say;

/// The limit to set; the unit in packaging/ has the same.
const WANTED: u64 = 65536;

/// Raises the limit to `WANTED`, which needs CAP_SYS_RESOURCE if the hard limit is
/// lower, else to the hard limit. Must be called before privileges are dropped.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        let most = hard.max(WANTED);
        setrlimit(Resource::RLIMIT_NOFILE, most, most)
            .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
    });
    if let Err(errno) = raised {
        tracing::debug!("the limit of open files is unchanged: {errno}");
    }
}

/// Limits connections without a login to a quarter of the open files, so that a full
/// table leaves descriptors for logged-in clients.
pub fn fitting(login: &LoginSettings) -> LoginSettings {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(usize::MAX, |(soft, _)| {
        usize::try_from(soft).unwrap_or(usize::MAX)
    });
    let fitting = within(login, limit);
    if fitting.max_startups != login.max_startups {
        say(format_args!(
            "warning: at most {} connections without a login, since this process may have {limit} \
             files open (ulimit -n, LimitNOFILE=)",
            fitting.max_startups.full
        ));
    }
    fitting
}

fn within(login: &LoginSettings, limit: usize) -> LoginSettings {
    let mut login = login.clone();
    let most = &mut login.max_startups;
    most.full = most.full.min(limit / 4).max(1);
    most.start = most.start.min(most.full);
    login
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_without_a_login_leave_files_for_clients() {
        let usual = LoginSettings::default();
        assert_eq!(within(&usual, usize::MAX), usual);
        let few = within(&usual, 1024).max_startups;
        assert_eq!((few.start, few.rate, few.full), (100, 30, 256));
        let none = within(&usual, 3).max_startups;
        assert_eq!((none.start, none.full), (1, 1));
    }
}

//! Parses the configuration of a server: it is valid as a whole, or one line of text names the
//! place of the fault.

use sshvpn::config::serve::file::{FileSettings, parse};
use sshvpn_fuzz::target;

target!(serve_config, run);

fn run(input: &[u8]) {
    match parse(input) {
        Ok(FileSettings { settings, lines }) => {
            let last = input.split(|&byte| byte == b'\n').count();
            assert_eq!(lines.clients.len(), settings.clients.len());
            assert!(
                lines
                    .clients
                    .iter()
                    .chain(&lines.pool)
                    .all(|&line| line >= 1 && line <= last)
            );
            assert!(settings.login.max_auth_tries > 0 && settings.limits.clients > 0);
            let startups = settings.login.max_startups;
            assert!(startups.start <= startups.full && (1..=100).contains(&startups.rate));
            assert!(settings.limits.upload != Some(0) && settings.limits.download != Some(0));
        }
        Err(reason) => {
            assert!(
                reason.starts_with("line ") && !reason.contains('\n'),
                "{reason}"
            );
        }
    }
}

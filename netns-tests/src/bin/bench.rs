//! Compares sshvpn with ssh and other VPNs, in namespaces on this machine: see
//! `netns_tests::bench` and `--help`.

use std::env;
use std::process::ExitCode;

use netns_tests::bench;
use netns_tests::bench::options::{Request, USAGE};
use netns_tests::lab::child;

fn main() -> ExitCode {
    child::print_nothing();
    let done = match Request::parse(env::args().skip(1)) {
        Ok(Request::Usage) => {
            print!("{USAGE}");
            Ok(())
        }
        Ok(Request::Measure(options)) => bench::run(&options),
        Err(error) => {
            eprintln!("bench: {error:#}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

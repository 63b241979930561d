//! Compares sshvpn with ssh and other VPNs, in namespaces on this machine: see
//! `netns_tests::bench` and `--help`.

use std::env;

use anyhow::Result;
use netns_tests::bench;
use netns_tests::bench::options::{Request, USAGE};
use netns_tests::lab::child;

fn main() -> Result<()> {
    child::print_nothing();
    match Request::parse(env::args().skip(1))? {
        Request::Usage => print!("{USAGE}"),
        Request::Measure(options) => bench::run(&options)?,
    }
    Ok(())
}

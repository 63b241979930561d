//! The program: parses the command line, sets up logging, runs the command and returns its exit
//! code.

#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::process::ExitCode;

use clap::Parser;
use clap::error::ContextKind;
use nix::sys::stat::{Mode, umask};
use sshvpn::agent;
use sshvpn::cli::serve::{ServeArgs, ServeCommand};
use sshvpn::cli::{Cli, Command, TunnelArgs, agent::AgentArgs, up::UpArgs};
use sshvpn::client::{tunnel, up};
use sshvpn::config;
use sshvpn::config::invoker::Invoker;
use sshvpn::config::ssh::args::SshArgs;
use sshvpn::config::ssh::options::{LogLevel, SshOptions};
use sshvpn::host::privilege::require_own_rights;
use sshvpn::process::background::{Forked, Ready, fork_until_ready};
use sshvpn::process::cleanup;
use sshvpn::process::failure::Failure;
use sshvpn::process::message::say;
use sshvpn::server::start::check;
use sshvpn::types::UnitRequest;
use tokio::runtime::Runtime;

/// The exit code for a wrong command line of a subcommand.
const WRONG_SUBCOMMAND: u8 = 2;

fn main() -> ExitCode {
    if config::invoker::elevation::by_set_user_id() {
        say("sshvpn: refuses to run with the set-user-ID or set-group-ID bit: use sudo, or setcap");
        return ExitCode::FAILURE;
    }
    keep_own_files_usable();
    sshvpn::process::memory::keep_freed();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_command_line(error),
    };
    // An agent holds no keys, and can lend its pages only while it is dumpable.
    if !matches!(&cli.command, Some(Command::Agent(_) | Command::Cleanup)) {
        sshvpn::process::memory::keep_secret();
    }
    let result = match &cli.command {
        Some(Command::Up(args)) => run_up(args),
        Some(Command::Serve(args)) => run_serve(args),
        Some(Command::Agent(args)) => run_agent(args),
        Some(Command::Cleanup) => run_cleanup(),
        None => run_tunnel(&cli.tunnel),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            say(format_args!("sshvpn: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

/// Takes the owner's bits out of the umask: without capabilities this process could not use its own
/// files.
fn keep_own_files_usable() {
    let inherited = umask(Mode::empty());
    umask(inherited & !Mode::S_IRWXU);
}

/// Prints the error or the requested help. The exit code is 2 for a subcommand, and ssh's 255
/// where sshvpn stands in for ssh.
fn wrong_command_line(mut error: clap::Error) -> ExitCode {
    // clap's tip to put '--' in front of an unknown option would make a host name of the option.
    error.remove(ContextKind::Suggested);
    // A closed standard error does not change the exit code.
    let _ = error.print();
    let first = std::env::args_os().nth(1);
    let subcommand = first.is_some_and(|first| Cli::is_subcommand(&first.to_string_lossy()));
    match error.use_stderr() {
        false => ExitCode::SUCCESS,
        true if subcommand => ExitCode::from(WRONG_SUBCOMMAND),
        true => ExitCode::from(Failure::SSH),
    }
}

fn run_tunnel(tunnel_args: &TunnelArgs) -> Result<u8, Failure> {
    let line = std::env::args_os().skip(1);
    let line = line.map(|word| word.to_string_lossy().into_owned());
    if let Some(problem) = tunnel_args.reserved_word(line) {
        say(format_args!("sshvpn: {problem}"));
        return Ok(WRONG_SUBCOMMAND);
    }
    let args = tunnel_args.to_args();
    let (invoker, options) = settings(&args)?;
    if options.tunnel.is_none() {
        if let Some(command) = tunnel_args.resembled_command() {
            say(format_args!(
                "sshvpn: there is no command '{}'; did you mean 'sshvpn {command}'?",
                options.destination
            ));
            return Ok(WRONG_SUBCOMMAND);
        }
        return Err(Failure::local(anyhow::anyhow!(
            "no tunnel requested: give -w LOCAL[:REMOTE], set 'Tunnel yes' for {} in ssh_config, \
             or use 'sshvpn up'",
            options.destination
        )));
    }
    warn_of_forwards(&options);
    let done = detached(options.fork_after_authentication, |ready, runtime| {
        runtime.block_on(tunnel::run(&args, &options, &invoker, ready))
    });
    match done {
        // As in ssh, -q also silences the final error.
        Err(failure) if options.log_level == LogLevel::Quiet => Ok(failure.code()),
        done => done,
    }
}

fn run_up(up_args: &UpArgs) -> Result<u8, Failure> {
    let mut request = match up_args.to_request() {
        Ok(request) => request,
        Err(text) => {
            use clap::CommandFactory;
            Cli::command()
                .error(clap::error::ErrorKind::ValueValidation, text)
                .exit();
        }
    };
    let (invoker, options) = settings(&request.args)?;
    if let UnitRequest::Unit(unit) = options.tunnel_device.remote {
        // TunnelDevice in ssh_config(5) names the remote unit for this destination.
        request.peer_unit.get_or_insert(unit);
    }
    warn_of_forwards(&options);
    detached(request.background, |ready, runtime| {
        runtime.block_on(up::run(&request, &options, &invoker, ready))
    })
}

fn run_serve(args: &ServeArgs) -> Result<u8, Failure> {
    match args.to_command() {
        ServeCommand::Check(request) => match check::become_user(&request) {
            Some(code) => Ok(code),
            None => Ok(runtime()?.block_on(check::run(&request))),
        },
        ServeCommand::Run(request) => {
            log(request.verbosity);
            require_own_rights("serve").map_err(Failure::local)?;
            sshvpn::server::run(&request)
        }
        ServeCommand::Prepare(request) => {
            log(request.verbosity);
            sshvpn::server::start::own_user::prepare(&request)
        }
        ServeCommand::Status { json } => sshvpn::server::report::status::show(json),
    }
}

fn run_agent(args: &AgentArgs) -> Result<u8, Failure> {
    log(args.verbosity);
    let runtime = runtime()?;
    let result = runtime.block_on(agent::run(args.to_request()));
    runtime.shutdown_background();
    result
}

fn run_cleanup() -> Result<u8, Failure> {
    log(0);
    let of_server = cleanup::of_servers_user(|| runtime().map_err(|failure| failure.to_string()))?;
    runtime()?.block_on(cleanup::run(of_server))
}

fn settings(args: &SshArgs) -> Result<(Invoker, SshOptions), Failure> {
    log(args.verbosity);
    let invoker = Invoker::detect().map_err(Failure::local)?;
    // Settings that cannot be read are an SSH error, as in ssh.
    let options = config::resolve(args, &invoker).map_err(Failure::ssh)?;
    Ok((invoker, options))
}

/// Names the forwards of ssh_config that ssh would set up and sshvpn does not.
fn warn_of_forwards(options: &SshOptions) {
    if !options.forwards.is_empty() && options.log_level > LogLevel::Error {
        say(format_args!(
            "warning: ssh_config has {} for {}: sshvpn forwards no ports",
            options.forwards.join(", "),
            options.destination
        ));
    }
}

/// Runs `work`; if `background` is set, in a child that detaches once it is ready.
fn detached(
    background: bool,
    work: impl FnOnce(Option<Ready>, &Runtime) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let ready = if background {
        match fork_until_ready().map_err(Failure::local)? {
            Forked::Parent(code) => return Ok(code),
            Forked::Child(ready) => Some(ready),
        }
    } else {
        None
    };
    let runtime = runtime()?;
    let result = work(ready, &runtime);
    // A thread that still blocks (a read of standard input) must not delay the exit.
    runtime.shutdown_background();
    result
}

/// One worker thread: each packet passes through the connection's task and one direction's task,
/// and waking another thread for each packet costs more than a second core gains.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::local)
}

/// Sets up debug logging to standard error; `RUST_LOG` overrides `-v`. User messages do not go
/// through it.
fn log(verbosity: u8) {
    use tracing_subscriber::{EnvFilter, fmt};
    let default = match verbosity {
        0 => "off",
        1 => "sshvpn=debug",
        2 => "sshvpn=debug,russh=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // It would report them by eprintln!, which panics if standard error is closed.
        .log_internal_errors(false)
        .init();
}

//! The program: parses the command line, sets up logging, runs the command and returns its exit
//! code.

#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ContextKind;
use nix::sys::stat::{Mode, umask};
use sshvpn::agent;
use sshvpn::cli::serve::{ServeArgs, ServeCommand};
use sshvpn::cli::{Cli, Command, SessionArgs, agent::AgentArgs, up::UpArgs};
use sshvpn::client::{control, session, up};
use sshvpn::config;
use sshvpn::config::invoker::Invoker;
use sshvpn::config::ssh::args::{ControlCommand, SshArgs};
use sshvpn::config::ssh::options::{LogLevel, SshOptions};
use sshvpn::host::privilege::require_own_rights;
use sshvpn::process::background::{Forked, Ready, fork_until_ready};
use sshvpn::process::cleanup;
use sshvpn::process::failure::Failure;
use sshvpn::process::message::{self, print, say};
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
        None => run_session(&cli.session),
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

fn run_session(session_args: &SessionArgs) -> Result<u8, Failure> {
    let line = std::env::args_os().skip(1);
    let line = line.map(|word| word.to_string_lossy().into_owned());
    if let Some(problem) = session_args.reserved_word(line) {
        say(format_args!("sshvpn: {problem}"));
        return Ok(WRONG_SUBCOMMAND);
    }
    if let Some(kind) = &session_args.query {
        return print_algorithms(kind);
    }
    let args = session_args.to_args();
    if session_args.print_settings {
        return print_settings(&args);
    }
    if let Some(file) = &session_args.log_file {
        log_to(file)?;
    }
    if let Some(command) = session_args.control {
        return send_control(command, args);
    }
    let (invoker, options) = settings(&args)?;
    let done = detached(options.fork_after_authentication, |ready, runtime| {
        runtime.block_on(session::run(&args, &options, &invoker, ready))
    });
    match done {
        // As in ssh, -q also silences the final error.
        Err(failure) if options.log_level == LogLevel::Quiet => Ok(failure.code()),
        Err(failure) => {
            if let Some(command) = session_args.resembled_command() {
                say(format_args!(
                    "sshvpn: '{}' is taken for a host; did you mean 'sshvpn {command}'?",
                    options.destination
                ));
            }
            Err(failure)
        }
        done => done,
    }
}

/// `-O`: sends a command to a running connection.
fn send_control(command: ControlCommand, mut args: SshArgs) -> Result<u8, Failure> {
    // ssh's -f wants a command, which -O has none of.
    args.options.push("SessionType=none".to_owned());
    let (invoker, options) = settings(&args)?;
    let Some(path) = &options.control_path else {
        return Err(Failure::ssh(anyhow::anyhow!(
            "-O needs the control socket: give -S PATH, or ControlPath in ssh_config"
        )));
    };
    control::run(command, path, &args, &invoker)
}

/// `-Q`: prints the names of a kind of algorithms.
fn print_algorithms(kind: &str) -> Result<u8, Failure> {
    let Some(names) = sshvpn::ssh::query::list(kind) else {
        return Err(Failure::ssh(anyhow::anyhow!(
            "-Q {kind}: unknown kind; -Q help prints the kinds"
        )));
    };
    print(&(names.join("\n") + "\n")).map_err(Failure::local)?;
    Ok(0)
}

/// `-G`: prints the settings as the ssh program does.
fn print_settings(args: &SshArgs) -> Result<u8, Failure> {
    let invoker = Invoker::detect().map_err(Failure::local)?;
    let text = config::print(args, &invoker).map_err(Failure::ssh)?;
    print(&text).map_err(Failure::local)?;
    Ok(0)
}

/// `-E`: appends messages to `file`, which is opened as the invoker.
fn log_to(file: &Path) -> Result<(), Failure> {
    let invoker = Invoker::detect().map_err(Failure::local)?;
    let opened = invoker.act(|| {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(file)
    });
    let opened = opened.map_err(|error| {
        Failure::ssh(anyhow::anyhow!(
            "cannot open the log file {}: {error}",
            file.display()
        ))
    })?;
    message::log_to(opened);
    Ok(())
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

/// Names the forwards of ssh_config that ssh would set up and `up` does not.
fn warn_of_forwards(options: &SshOptions) {
    if !options.forwards.is_empty() && options.log_level > LogLevel::Error {
        say(format_args!(
            "warning: ssh_config has {} for {}, which 'sshvpn up' does not set up: use 'sshvpn -N {}' \
             beside it",
            options.forwards.keywords().join(", "),
            options.destination,
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
        .with_writer(message::log)
        .with_target(false)
        // It would report them by eprintln!, which panics if standard error is closed.
        .log_internal_errors(false)
        .init();
}

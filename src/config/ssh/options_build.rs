//! Converts keywords and their values to [`SshOptions`].

use super::args::SshArgs;
use super::destination::{parse_jump_list, parse_port};
use super::option_words::{
    address_family, fingerprint_hash, positive, pubkey_authentication, request_tty, session_type,
    strict_host_key_checking,
};
use super::options::SshOptions;
use super::syntax::parse_escape_char;
use super::tokens::Tokens;
use super::value_reader::Reader;
use super::values::SshValues;
use crate::config::error::ConfigError;
use crate::config::invoker::Invoker;
use crate::types::parse_tunnel;

/// Builds the settings from `values`, and from `defaults` for missing ones. `values` is the output
/// of `ssh -G` for `args`: some of its values are expanded already.
pub(crate) fn build(
    mut values: SshValues,
    defaults: &SshValues,
    args: &SshArgs,
    invoker: &Invoker,
) -> Result<SshOptions, ConfigError> {
    let configured = |key| values.contains(key) && values.all(key) != defaults.all(key);
    let identity_files_explicit = configured("identityfile");
    let host_key_algorithms_explicit = configured("hostkeyalgorithms");
    if args.stdio_forward.is_some() {
        // As in ssh(1), -W.
        for (key, value) in [
            ("exitonforwardfailure", "yes"),
            ("clearallforwardings", "yes"),
        ] {
            if !values.contains(key) {
                values.push(key, value.to_owned());
            }
        }
    }
    values.fill_from(defaults);
    let typed_host = args.destination()?.host;
    let tokens = tokens(&values, &typed_host, invoker)?;
    let reader = Reader {
        values: &values,
        tokens: &tokens,
        invoker,
    };
    reader.mention_what_is_not_taken_up();
    Ok(SshOptions {
        destination: typed_host,
        host: tokens.host.clone(),
        port: reader.parsed("port", "a port from 1 to 65535", parse_port)?,
        user: tokens.remote_user.clone(),
        address_family: reader.parsed("addressfamily", "any, inet or inet6", address_family)?,
        bind_address: reader.text("bindaddress"),
        bind_interface: reader.text("bindinterface"),
        connect_timeout: reader.time("connecttimeout")?,
        connection_attempts: reader.parsed("connectionattempts", "a number above 0", positive)?,
        tcp_keep_alive: reader.flag("tcpkeepalive")?,
        congestion: args.congestion.clone(),
        segment_size: None,
        proxy: reader.proxy()?,
        host_key_alias: reader.text("hostkeyalias"),
        user_known_hosts: reader.plain_paths("userknownhostsfile")?,
        global_known_hosts: reader.plain_paths("globalknownhostsfile")?,
        revoked_host_keys: reader.plain_paths("revokedhostkeys")?,
        strict_host_key_checking: reader.parsed(
            "stricthostkeychecking",
            "yes, no, ask or accept-new",
            strict_host_key_checking,
        )?,
        hash_known_hosts: reader.flag("hashknownhosts")?,
        check_host_ip: reader.flag("checkhostip")?,
        no_host_authentication_for_localhost: reader.flag("nohostauthenticationforlocalhost")?,
        fingerprint_hash: reader.parsed("fingerprinthash", "sha256 or md5", fingerprint_hash)?,
        required_rsa_size: reader.number("requiredrsasize")?,
        identity_files: reader.expanded_paths("identityfile")?,
        identity_files_explicit,
        certificate_files: reader.expanded_paths("certificatefile")?,
        identities_only: reader.flag("identitiesonly")?,
        identity_agent: reader.identity_agent()?,
        preferred_authentications: reader.list("preferredauthentications"),
        pubkey_authentication: reader.parsed(
            "pubkeyauthentication",
            "yes, no, unbound or host-bound",
            pubkey_authentication,
        )?,
        password_authentication: reader.flag("passwordauthentication")?,
        kbd_interactive_authentication: reader.flag("kbdinteractiveauthentication")?,
        number_of_password_prompts: reader.number("numberofpasswordprompts")?,
        batch_mode: reader.flag("batchmode")?,
        pubkey_accepted_algorithms: reader.algorithms("pubkeyacceptedalgorithms")?,
        ciphers: reader.algorithms("ciphers")?,
        kex_algorithms: reader.algorithms("kexalgorithms")?,
        macs: reader.algorithms("macs")?,
        host_key_algorithms: reader.algorithms("hostkeyalgorithms")?,
        host_key_algorithms_explicit,
        ca_signature_algorithms: reader.algorithms("casignaturealgorithms")?,
        rekey_limit: reader.rekey_limit()?,
        server_alive_interval: reader.time("serveraliveinterval")?,
        server_alive_count_max: reader.number("serveralivecountmax")?,
        tunnel: reader.typed("tunnel", parse_tunnel)?,
        tunnel_device: reader.typed("tunneldevice", str::parse)?,
        forwards: reader.forwards(args)?,
        control: reader.control()?,
        control_path: reader.control_path()?,
        exit_on_forward_failure: reader.flag("exitonforwardfailure")?,
        request_tty: reader.parsed("requesttty", "no, yes, force or auto", request_tty)?,
        // `ssh -G` does not print the command line's command.
        remote_command: match args.command.is_empty() {
            true => reader.text("remotecommand"),
            false => Some(args.command.join(" ")),
        },
        session_type: reader.parsed("sessiontype", "none, subsystem or default", session_type)?,
        stdin_null: reader.flag("stdinnull")?,
        fork_after_authentication: reader.flag("forkafterauthentication")?,
        send_env: values.all("sendenv").to_vec(),
        set_env: reader.set_env()?,
        escape_char: reader.parsed("escapechar", "a character, ^X or none", parse_escape_char)?,
        log_level: reader.log_level(args)?,
    })
}

/// The values of the tokens, for a known host, port and user.
pub(crate) fn tokens(
    values: &SshValues,
    typed_host: &str,
    invoker: &Invoker,
) -> Result<Tokens, ConfigError> {
    let text = |key, otherwise: &str| values.first(key).unwrap_or(otherwise).to_owned();
    let local_host = nix::unistd::gethostname().map_err(|errno| ConfigError::System {
        what: "read the host's name",
        source: errno.into(),
    })?;
    let hops = values.first("proxyjump").map(parse_jump_list).transpose();
    let last_hop = hops?.unwrap_or_default().pop();
    Ok(Tokens {
        host: text("hostname", typed_host),
        original_host: typed_host.to_owned(),
        key_alias: text("hostkeyalias", typed_host),
        port: text("port", "22"),
        remote_user: text("user", &invoker.name),
        jump_host: last_hop.map(|hop| hop.host).unwrap_or_default(),
        home: invoker.home.to_string_lossy().into_owned(),
        local_user: invoker.name.clone(),
        user_id: invoker.uid.to_string(),
        local_host: local_host.to_string_lossy().into_owned(),
    })
}

#[cfg(test)]
mod tests;

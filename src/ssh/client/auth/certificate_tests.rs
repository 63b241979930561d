//! User and host certificates, with the distribution's sshd.

use std::fs;

use crate::config::ssh::options::StrictHostKeyChecking;
use crate::ssh::client::host_key::HostTrust;
use crate::ssh::client::prompt::Prompter;
use crate::ssh::client::prompt::script::Script;
use crate::ssh::client::test_server::{
    Failure, Server, add_to_agent, logged, nobody, start_agent, with_keys,
};
use crate::ssh::test_settings;

#[tokio::test]
async fn user_certificates_beside_the_key_by_name_and_in_the_agent() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let server = Server::new("");
        let authority = server.key("ca", &["-t", "ed25519", "-N", ""]);
        let config = fs::read_to_string(server.path("config")).unwrap();
        let trusted = format!("TrustedUserCAKeys {}.pub\n{config}", authority.display());
        fs::write(server.path("config"), trusted).unwrap();
        let key = server.key("id", &["-t", kind, "-N", ""]);
        let user = test_settings::invoker().name;
        server.certify("ca", "id", &["-n", &user]);

        let mut options = with_keys(&server, &["id"]);
        let outcome = server.log_in(&options, &nobody()).await;
        assert!(outcome.is_ok(), "{kind}: {outcome:?}\n{}", server.log());

        let socket = server.path("agent");
        let _agent = start_agent(&socket).await;
        fs::rename(server.path("id-cert.pub"), server.path("named")).unwrap();
        add_to_agent(&socket, &key);
        options.certificate_files = vec![server.path("named")];
        server.log_in(&options, &nobody()).await.unwrap();
        // The file has the certificate; the agent signs with the plain key.
        options.identity_files.clear();
        options.identity_agent = Some(socket.clone());
        fs::rename(&key, server.path("hidden")).unwrap();
        let outcome = server.log_in(&options, &nobody()).await;
        assert!(outcome.is_ok(), "{kind}: {outcome:?}\n{}", server.log());
        // The agent has the certificate.
        fs::rename(server.path("hidden"), &key).unwrap();
        fs::rename(server.path("named"), server.path("id-cert.pub")).unwrap();
        add_to_agent(&socket, &key);
        options.certificate_files.clear();
        fs::remove_file(server.path("id-cert.pub")).unwrap();
        let outcome = server.log_in(&options, &nobody()).await;
        assert!(outcome.is_ok(), "{kind}: {outcome:?}\n{}", server.log());
        let accepted = format!("Accepted publickey for {user}");
        assert_eq!(logged(&server, &accepted), 4, "{}", server.log());
        assert_eq!(logged(&server, "-CERT"), 4, "{}", server.log());
    }
}

/// A server with a host certificate for `principal`.
fn with_host_certificate(principal: &str) -> Server {
    let server = Server::new("");
    server.key("ca", &["-t", "ed25519", "-N", ""]);
    server.certify("ca", "host", &["-h", "-n", principal]);
    let config = fs::read_to_string(server.path("config")).unwrap();
    let certificate = server.path("host-cert.pub");
    let config = format!("HostCertificate {}\n{config}", certificate.display());
    fs::write(server.path("config"), config).unwrap();
    server
}

fn trust_authority(server: &Server, names: &str) {
    let public = fs::read_to_string(server.path("ca.pub")).unwrap();
    let line = format!("@cert-authority {names} {public}");
    fs::write(server.path("known_hosts"), line).unwrap();
}

#[tokio::test]
async fn a_host_certificate_is_accepted_without_a_question() {
    let server = with_host_certificate("127.0.0.1");
    trust_authority(&server, "127.*");
    let mut options = server.options();
    options.strict_host_key_checking = StrictHostKeyChecking::Yes;
    let connected = server.connect(&options, &nobody()).await;
    let (_handle, check, _sshd) = connected.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(check.trust(), Some(HostTrust::Verified));
}

#[tokio::test]
async fn a_host_certificate_for_another_name_is_refused() {
    let server = with_host_certificate("elsewhere");
    trust_authority(&server, "127.*");
    let mut options = server.options();
    options.strict_host_key_checking = StrictHostKeyChecking::Yes;
    let script = Script::new(&[]);
    let refused = server
        .connect(&options, &Prompter::scripted(script.clone()))
        .await;
    assert!(matches!(refused, Err(Failure::HostKey(_))));
    assert_eq!(
        script.seen()[0],
        "Certificate invalid: name is not a listed principal"
    );
}

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A request with a file of this text, and its directory.
fn with_file(text: &str) -> (tempfile::TempDir, ServeRequest) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("serve.toml");
    fs::write(&path, text).unwrap();
    let request = ServeRequest {
        config: Some(path),
        ..ServeRequest::default()
    };
    (directory, request)
}

fn error(text: &str) -> String {
    let (_directory, request) = with_file(text);
    request.load().unwrap_err().to_string()
}

#[test]
fn the_command_line_wins_over_the_file() {
    let (_directory, request) = with_file(
        "listen = [\"127.0.0.1:1\"]\n\
         [network]\nroute = [\"10.1.0.0/16\"]\nbridge = \"br0\"\nassign = false\n\
         [audit]\nfile = \"f\"\n",
    );
    let plain = request.load().unwrap();
    assert_eq!(plain.network.bridge, "br0".parse().ok());
    assert_eq!(plain.audit.file, Some("f".into()));
    let request = ServeRequest {
        listen: vec!["127.0.0.1:2".parse().unwrap()],
        pools: vec!["10.9.0.0/24".parse().unwrap()],
        routes: vec!["10.2.0.0/16".parse().unwrap()],
        bridge: "br1".parse().ok(),
        authorized_keys: vec!["a".into()],
        host_keys: vec!["h".into()],
        no_nat: true,
        audit_log: Some("g".into()),
        metrics: "127.0.0.1:9".parse().ok(),
        ..request
    };
    let settings = request.load().unwrap();
    assert_eq!(settings.listen, request.listen);
    assert_eq!(settings.network.pools, request.pools);
    assert_eq!(settings.network.routes, request.routes);
    assert_eq!(settings.network.bridge, request.bridge);
    assert_eq!(settings.authorized_keys, request.authorized_keys);
    assert_eq!(settings.host_keys, request.host_keys);
    assert_eq!(settings.audit.file, request.audit_log);
    assert_eq!(settings.metrics, request.metrics);
    assert!(settings.network.assign && !settings.network.nat && plain.network.nat);
}

#[test]
fn a_changed_file_is_taken_up_by_the_next_load() {
    let (_directory, request) = with_file("[limits]\nclients = 1");
    assert_eq!(request.load().unwrap().limits.clients, 1);
    fs::write(request.config_path(), "[limits]\nclients = 2").unwrap();
    assert_eq!(request.load().unwrap().limits.clients, 2);
}

#[test]
fn a_file_that_was_asked_for_has_to_be_there_and_be_nobody_elses() {
    let (directory, request) = with_file("");
    assert!(request.load().is_ok());
    fs::set_permissions(request.config_path(), Permissions::from_mode(0o666)).unwrap();
    let error = request.load().unwrap_err().to_string();
    assert!(error.contains("chmod go-w"), "{error}");
    let missing = ServeRequest {
        config: Some(directory.path().join("none")),
        ..ServeRequest::default()
    };
    let error = missing.load().unwrap_err().to_string();
    assert!(error.contains("no such file"), "{error}");
}

#[test]
fn syntax_is_told_with_file_and_line() {
    let error = error("\nlisten = 1");
    assert!(error.contains("serve.toml: line 2: "), "{error}");
}

#[test]
fn contradictions_are_told_with_file_and_line() {
    let client =
        |keys: &str| format!("[[client]]\nuser = \"a\"\n{keys}\n[[client]]\nuser = \"b\"\n{keys}");
    for (text, place, said) in [
        ("listen = []".to_owned(), "", "listen is empty"),
        ("listen = [\"[::]:0\"]".to_owned(), "", "port 0"),
        ("host-key = []".to_owned(), "", "host-key"),
        (
            "authorized-keys = []".to_owned(),
            "",
            "no client could log in",
        ),
        ("[network]\ndns-search = [\"a b\"]".to_owned(), "", "spaces"),
        (
            format!("[network]\ndns-server = [{}]", "\"10.9.0.1\",".repeat(9)),
            "",
            "9 entries in dns-server: clients accept at most 8",
        ),
        (
            format!("[[client]]\nroute = [{}]", "\"10.9.0.1/32\",".repeat(1025)),
            "line 1",
            "1025 entries in route",
        ),
        (
            "[network]\npool = [\"10.9.0.0/24\", \"10.9.0.128/25\"]".to_owned(),
            "line 2",
            "two pools",
        ),
        (
            "[network]\npool = [\"10.9.0.0/31\"]".to_owned(),
            "line 2",
            "too small",
        ),
        (
            "[network]\npool = [\"fd00::/127\"]".to_owned(),
            "line 2",
            "too small",
        ),
        (
            "[network]\npool = [\"127.0.0.0/24\"]".to_owned(),
            "line 2",
            "not a network",
        ),
        (
            "[network]\npool = [\"ff02::/64\"]".to_owned(),
            "line 2",
            "not a network",
        ),
        (
            "[network]\nassign = false\npool = [\"10.9.0.0/24\"]".to_owned(),
            "line 3",
            "contradict",
        ),
        (
            client("address = [\"10.9.0.5\"]"),
            "line 4",
            "another [[client]]",
        ),
        (client("unit = 5"), "line 4", "unit 5"),
        (client("source = [\"10.7.0.0/16\"]"), "line 4", "overlaps"),
        (
            "[[client]]\nuser = \"a\"\nsource = [\"10.7.0.0/16\"]\n\
             [[client]]\nuser = \"b\"\naddress = [\"10.7.3.4\"]"
                .to_owned(),
            "line 4",
            "address 10.7.3.4 lies in source 10.7.0.0/16",
        ),
        (
            "[[client]]\nuser = \"a\"\naddress = [\"10.9.0.5\"]\n\
             [[client]]\nuser = \"b\"\nsource = [\"10.9.0.0/29\"]"
                .to_owned(),
            "line 4",
            "address 10.9.0.5 lies in source 10.9.0.0/29",
        ),
        (
            "[[client]]\naddress = [\"10.9.0.5\"]".to_owned(),
            "line 1",
            "all clients",
        ),
        (
            "[[client]]\nauthority = \"SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE\"\n\
             address = [\"10.9.0.5\"]"
                .to_owned(),
            "line 1",
            "all clients",
        ),
        ("[[client]]\nunit = 5".to_owned(), "line 1", "all clients"),
        (
            "[[client]]\nuser = \"\"".to_owned(),
            "line 1",
            "user is empty",
        ),
        (
            "[[client]]\ngroup = [\"a b\"]".to_owned(),
            "line 1",
            "group",
        ),
        (
            "[[client]]\nuser = \"a\"\naddress = [\"10.9.0.5\", \"10.9.0.6\"]".to_owned(),
            "line 1",
            "one family",
        ),
        (
            "[[client]]\nuser = \"a\"\naddress = [\"0.0.0.0\"]".to_owned(),
            "line 1",
            "not a network",
        ),
    ] {
        let told = error(&text);
        assert!(
            told.contains(place) && told.contains(said),
            "{text}: {told}"
        );
        assert!(told.contains("serve.toml"), "{told}");
    }
}

#[test]
fn what_a_pool_keeps_for_itself_is_nobodys() {
    let told = |address: &str| {
        let text = format!(
            "[network]\npool = [\"10.9.0.0/24\", \"fd09::/64\"]\n\
             [[client]]\nuser = \"a\"\naddress = [\"{address}\"]"
        );
        let (_directory, request) = with_file(&text);
        request.load().err().map(|error| error.to_string())
    };
    for (address, said) in [
        ("10.9.0.0", "the first address"),
        ("10.9.0.1", "the server's address"),
        ("10.9.0.255", "the broadcast address"),
        ("fd09::", "the first address"),
        ("fd09::1", "the server's address"),
    ] {
        let error = told(address).unwrap();
        assert!(error.contains(said) && error.contains("line 3"), "{error}");
    }
    // Addresses outside of the pools are unrestricted.
    for address in [
        "10.9.0.2",
        "10.9.0.254",
        "fd09::ffff",
        "10.8.0.1",
        "fd08::1",
    ] {
        assert_eq!(told(address), None, "{address}");
    }
}

#[test]
fn a_network_behind_a_client_is_not_the_pool() {
    let told = error(
        "[network]\npool = [\"10.9.0.0/24\"]\n[[client]]\nuser = \"a\"\nsource = [\"10.0.0.0/8\"]",
    );
    assert!(told.contains("10.9.0.0/24, which is the pool"), "{told}");
}

#[test]
fn a_pool_of_the_command_line_is_said_to_be_there() {
    let (_directory, request) = with_file("[network]\npool = [\"10.9.0.0/24\"]");
    let request = ServeRequest {
        pools: vec!["10.8.0.0/32".parse().unwrap()],
        ..request
    };
    let error = request.load().unwrap_err().to_string();
    assert!(error.starts_with("command line: "), "{error}");
}

//! The metrics page for Prometheus.

use std::fs;
use std::time::Instant;

use super::exposition::{Exposition, Kind};
use crate::server::report::audit::time::Timestamp;
use crate::server::report::registry::View;
use crate::server::report::registry::clients::ClientView;
use crate::server::report::registry::traffic::{DirectionTraffic, Traffic};
use crate::server::report::status::watched::Watched;

/// Renders the page for the time `now`.
pub(super) fn render(watched: &Watched, now: Instant) -> String {
    let view = watched.registry.view();
    let mut page = Exposition::default();
    connections(&mut page, &view);
    state(&mut page, watched, &view, now);
    requests(&mut page, &view);
    traffic(&mut page, &view);
    clients(&mut page, &view);
    process(&mut page, watched);
    page.finish()
}

fn connections(page: &mut Exposition, view: &View) {
    let sum = |counts: &std::collections::BTreeMap<_, u64>| counts.values().sum::<u64>();
    let mut outcomes = page.family(
        "sshvpn_serve_connections_total",
        Kind::Counter,
        "Connections by outcome.",
    );
    outcomes.sample(&[("outcome", "login")], view.logins);
    outcomes.sample(&[("outcome", "failed")], sum(&view.failed));
    outcomes.sample(&[("outcome", "refused")], sum(&view.refused));
    let mut refused = page.family(
        "sshvpn_serve_connections_refused_total",
        Kind::Counter,
        "Connections refused before the banner or displaced before login, by reason.",
    );
    for (reason, count) in &view.refused {
        refused.sample(&[("reason", reason)], count);
    }
    let mut failed = page.family(
        "sshvpn_serve_logins_failed_total",
        Kind::Counter,
        "Connections that ended without a login, by reason.",
    );
    for (reason, count) in &view.failed {
        failed.sample(&[("reason", reason)], count);
    }
    page.single(
        "sshvpn_serve_logins_total",
        Kind::Counter,
        "Logins.",
        view.logins,
    );
}

fn state(page: &mut Exposition, watched: &Watched, view: &View, now: Instant) {
    let tunnels = view.sessions.iter().filter(|it| it.tunnel.is_some());
    for (name, help, value) in [
        (
            "sshvpn_serve_sessions",
            "Clients that are logged in.",
            view.sessions.len(),
        ),
        (
            "sshvpn_serve_tunnels",
            "Tunnels that are up.",
            tunnels.count(),
        ),
        (
            "sshvpn_serve_startups",
            "Connections that have not logged in yet.",
            watched.admission.startups(),
        ),
        (
            "sshvpn_serve_penalised_sources",
            "Sources with a penalty.",
            watched.admission.penalised_sources(now),
        ),
        (
            "sshvpn_serve_leases",
            "Addresses of the pools that are in use.",
            watched.leases(),
        ),
    ] {
        page.single(name, Kind::Gauge, help, value);
    }
    for (name, help, value) in [
        (
            "sshvpn_serve_reloads_total",
            "Reloads of the settings.",
            watched.reloads(),
        ),
        (
            "sshvpn_serve_audit_records_lost_total",
            "Records missing from the audit log.",
            watched.audit.lost(),
        ),
    ] {
        page.single(name, Kind::Counter, help, value);
    }
}

fn requests(page: &mut Exposition, view: &View) {
    let mut requests = page.family(
        "sshvpn_serve_requests_total",
        Kind::Counter,
        "Requests of clients, by outcome.",
    );
    for (kind, tally) in view.tallies.by_kind() {
        for (outcome, count) in [("granted", tally.granted), ("refused", tally.refused)] {
            requests.sample(&[("request", kind), ("outcome", outcome)], count);
        }
    }
}

fn directions(traffic: &Traffic) -> [(&'static str, &DirectionTraffic); 2] {
    [("upload", &traffic.upload), ("download", &traffic.download)]
}

fn traffic(page: &mut Exposition, view: &View) {
    let both = directions(&view.traffic);
    let mut packets = page.family(
        "sshvpn_serve_packets_total",
        Kind::Counter,
        "Packets of all tunnels; upload is from clients.",
    );
    for (name, direction) in both {
        packets.sample(&[("direction", name)], direction.packets);
    }
    let mut bytes = page.family(
        "sshvpn_serve_bytes_total",
        Kind::Counter,
        "Bytes of these packets.",
    );
    for (name, direction) in both {
        bytes.sample(&[("direction", name)], direction.bytes);
    }
    let mut dropped = page.family(
        "sshvpn_serve_packets_dropped_total",
        Kind::Counter,
        "Packets that were dropped, by reason.",
    );
    for (name, direction) in both {
        for (reason, count) in &direction.dropped {
            dropped.sample(&[("direction", name), ("reason", reason)], count);
        }
    }
    let mut forwarded = page.family(
        "sshvpn_serve_forwarded_bytes_total",
        Kind::Counter,
        "Bytes of forwarded TCP connections.",
    );
    forwarded.sample(&[("direction", "upload")], view.forwarded.upload);
    forwarded.sample(&[("direction", "download")], view.forwarded.download);
}

/// One series per client and direction; the registry limits the number of clients.
fn clients(page: &mut Exposition, view: &View) {
    let mut live = page.family(
        "sshvpn_serve_client_sessions",
        Kind::Gauge,
        "Connections of each client.",
    );
    for client in &view.clients {
        let (key, user) = (&client.client.fingerprint, &client.client.user);
        let labels = [("fingerprint", key.as_str()), ("user", user.as_str())];
        live.sample(&labels, client.live);
    }
    both_ways(
        page,
        view,
        "sshvpn_serve_client_packets_total",
        "Packets of each client's tunnels.",
        |client| [&client.traffic.upload, &client.traffic.download].map(|way| way.packets),
    );
    both_ways(
        page,
        view,
        "sshvpn_serve_client_bytes_total",
        "Bytes of these packets.",
        |client| [&client.traffic.upload, &client.traffic.download].map(|way| way.bytes),
    );
    both_ways(
        page,
        view,
        "sshvpn_serve_client_packets_dropped_total",
        "Packets of each client that were dropped.",
        |client| {
            [&client.traffic.upload, &client.traffic.download]
                .map(DirectionTraffic::dropped_packets)
        },
    );
    both_ways(
        page,
        view,
        "sshvpn_serve_client_forwarded_bytes_total",
        "Bytes of each client's forwarded TCP connections.",
        |client| [client.forwarded.upload, client.forwarded.download],
    );
}

/// A family with two samples per client, upload and download.
fn both_ways(
    page: &mut Exposition,
    view: &View,
    name: &'static str,
    help: &str,
    values: fn(&ClientView) -> [u64; 2],
) {
    let mut family = page.family(name, Kind::Counter, help);
    for client in &view.clients {
        let (key, user) = (&client.client.fingerprint, &client.client.user);
        for (way, value) in ["upload", "download"].into_iter().zip(values(client)) {
            let labels = [
                ("fingerprint", key.as_str()),
                ("user", user.as_str()),
                ("direction", way),
            ];
            family.sample(&labels, value);
        }
    }
}

/// Metrics with the names that Prometheus' own client libraries use.
fn process(page: &mut Exposition, watched: &Watched) {
    let started = Timestamp::from(watched.started).since_epoch();
    page.single(
        "process_start_time_seconds",
        Kind::Gauge,
        "Start time of the server in seconds since 1970.",
        format_args!("{:.3}", started.as_secs_f64()),
    );
    if let Some(bytes) = resident_memory() {
        page.single(
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Resident memory of the server in bytes.",
            bytes,
        );
    }
}

/// In bytes (proc_pid_status(5), VmRSS).
fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

//! What a client's device is given, and that nothing of it is left; each test in a fresh
//! network namespace.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::host::test_host::{Host, snapshot};
use crate::host::test_namespace::{self, ip};
use crate::packet::guard::link::MacAddress;

const GROUP: u32 = 7;

fn devices(host: &Host) -> ClientDevices {
    ClientDevices::new(host.directory.clone(), GROUP).unwrap()
}

fn leased(client: &str) -> LeasedAddress {
    let client: IpAddr = client.parse().unwrap();
    let server = if client.is_ipv4() {
        "10.9.0.1"
    } else {
        "fd09::1"
    };
    LeasedAddress {
        client,
        server: server.parse().unwrap(),
        prefix: if client.is_ipv4() { 24 } else { 64 },
    }
}

fn request(clients: &[&str]) -> ClientDeviceRequest {
    ClientDeviceRequest {
        mode: Mode::PointToPoint,
        unit: new(UnitRequest::Any, &[]),
        mtu: Mtu::ETHERNET,
        addresses: clients.iter().map(|client| leased(client)).collect(),
        sources: Vec::new(),
        grouped: false,
    }
}

fn unit(number: u32) -> Unit {
    Unit::new(number).unwrap()
}

fn new(asked: UnitRequest, reserved: &[u32]) -> ClientUnit {
    ClientUnit::New {
        asked,
        reserved: Arc::new(reserved.iter().map(|number| unit(*number)).collect()),
    }
}

/// Waits until the route to an address uses that device: the kernel adds the routes of
/// IPv6 addresses in a task of its own.
async fn wait_for_way(devices: &ClientDevices, to: &str, device: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let path = devices.netlink.route_to(to.parse().unwrap()).await;
        if path.as_ref().is_ok_and(|path| path.device_name == device) {
            return;
        }
        assert!(Instant::now() < end, "{to}: {path:?}");
        tokio::task::yield_now().await;
    }
}

/// Closes a device and waits until it is gone: a child that another test is starting
/// may have a copy of its descriptor.
fn close(opened: ClientDevice) {
    let name = opened.device.name().clone();
    drop(opened);
    let end = Instant::now() + Duration::from_secs(20);
    while ip("link").contains(&format!(" {name}:")) {
        assert!(Instant::now() < end, "{name} stays");
        std::thread::yield_now();
    }
}

#[test]
fn a_device_has_what_a_client_needs_and_leaves_nothing() {
    test_namespace::run(async {
        let host = Host::new();
        ip("link set lo up");
        let before = snapshot();
        let devices = devices(&host);
        let opened = devices
            .open(request(&["10.9.0.2", "fd09::2"]))
            .await
            .unwrap();
        assert_eq!(opened.device.name().as_str(), "tun0");
        let now = snapshot();
        for there in [
            "inet 10.9.0.1 peer 10.9.0.2/32",
            "inet6 fd09::1 peer fd09::2/128",
            "mtu 1500",
            "group 7",
            "gso_max_size 64000",
        ] {
            assert!(now.contains(there), "{there} in {now}");
        }
        assert!(!now.contains("inet6 fe80"), "{now}");
        let key = SysctlKey::ipv4(opened.device.name(), "forwarding").unwrap();
        assert_eq!(key.read().unwrap(), "1");
        assert!(host.files().is_empty());
        close(opened);
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn the_servers_address_stays_while_any_client_is_there() {
    test_namespace::run(async {
        let host = Host::new();
        ip("link set lo up");
        let devices = devices(&host);
        let first = devices
            .open(request(&["10.9.0.2", "fd09::2"]))
            .await
            .unwrap();
        let second = devices
            .open(request(&["10.9.0.3", "fd09::3"]))
            .await
            .unwrap();
        wait_for_way(&devices, "10.9.0.3", "tun1").await;
        wait_for_way(&devices, "fd09::2", "tun0").await;
        wait_for_way(&devices, "fd09::3", "tun1").await;
        close(first);
        for (server, client) in [("10.9.0.1", "10.9.0.3"), ("fd09::1", "fd09::3")] {
            let path = devices
                .netlink
                .route_to(server.parse().unwrap())
                .await
                .unwrap();
            assert!(path.local, "{path:?}");
            wait_for_way(&devices, client, "tun1").await;
        }
        close(second);
    });
}

#[test]
fn units_are_as_asked_for_and_one_has_one_client() {
    test_namespace::run(async {
        let host = Host::new();
        let devices = devices(&host);
        let of_unit = |unit: ClientUnit| ClientDeviceRequest {
            unit,
            ..request(&["10.9.0.2"])
        };
        let five = || of_unit(new(UnitRequest::Unit(unit(5)), &[]));
        let first = devices.open(five()).await.unwrap();
        assert_eq!(first.device.name().as_str(), "tun5");
        let exists = devices.open(five()).await.unwrap_err();
        assert!(
            matches!(exists, ClientDeviceError::Open(OpenError::Exists(_))),
            "{exists}"
        );
        let granted = of_unit(ClientUnit::Granted(unit(5)));
        let busy = devices.open(granted).await.unwrap_err();
        assert!(
            matches!(busy, ClientDeviceError::Open(OpenError::Busy(_))),
            "{busy}"
        );
        close(first);
        close(again(&devices, five()).await.unwrap());
    });
}

#[test]
fn a_client_without_a_unit_of_its_own_gets_a_new_device_that_is_nobodys() {
    test_namespace::run(async {
        let host = Host::new();
        ip("tuntap add dev tun5 mode tun");
        ip("tuntap add dev tun1 mode tun");
        ip("link add tun3 type bridge");
        let before = snapshot();
        let devices = devices(&host);
        let of_unit = |unit: ClientUnit| ClientDeviceRequest {
            unit,
            ..request(&["10.9.0.2"])
        };
        for taken in [1, 3, 5] {
            let asked = UnitRequest::Unit(unit(taken));
            let refused = devices.open(of_unit(new(asked, &[]))).await.unwrap_err();
            assert!(
                matches!(refused, ClientDeviceError::Open(OpenError::Exists(_))),
                "{refused}"
            );
        }
        assert_eq!(snapshot(), before);
        let mut opened = Vec::new();
        for expected in ["tun4", "tun6", "tun8"] {
            let any = of_unit(new(UnitRequest::Any, &[0, 2, 7]));
            let device = devices.open(any).await.unwrap();
            assert_eq!(device.device.name().as_str(), expected);
            assert!(!device.device.preexisting());
            opened.push(device);
        }
        let first = devices.open(request(&["10.9.0.2"])).await.unwrap();
        assert_eq!(first.device.name().as_str(), "tun0");
        opened.push(first);
        opened.into_iter().for_each(close);
        let granted = of_unit(ClientUnit::Granted(unit(5)));
        let premade = again(&devices, granted).await.unwrap();
        assert!(premade.device.preexisting());
        drop(premade.device);
        assert!(premade.changes.undo().await.is_clean());
    });
}

#[test]
fn the_latest_connection_is_the_way_to_the_network_behind_it() {
    test_namespace::run(async {
        let host = Host::new();
        let devices = devices(&host);
        let with_network = |client| ClientDeviceRequest {
            sources: vec![
                "192.168.7.0/24".parse().unwrap(),
                "fd77::/64".parse().unwrap(),
            ],
            ..request(&[client])
        };
        let first = devices.open(with_network("10.9.0.2")).await.unwrap();
        let second = devices.open(with_network("10.9.0.3")).await.unwrap();
        for behind in ["192.168.7.7", "fd77::7"] {
            wait_for_way(&devices, behind, "tun1").await;
        }
        close(second);
        for behind in ["192.168.7.7", "fd77::7"] {
            wait_for_way(&devices, behind, "tun0").await;
        }
        close(first);
    });
}

/// Opens a device that was closed a moment ago: a child that another test is starting
/// may have a copy of its descriptor.
async fn again(
    devices: &ClientDevices,
    request: ClientDeviceRequest,
) -> Result<ClientDevice, ClientDeviceError> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match devices.open(request.clone()).await {
            Err(ClientDeviceError::Open(OpenError::Busy(_) | OpenError::Exists(_))) => {
                assert!(Instant::now() < end);
            }
            opened => return opened,
        }
    }
}

#[test]
fn a_device_made_beforehand_gets_its_settings_back() {
    test_namespace::run(async {
        let host = Host::new();
        ip("tuntap add dev tun3 mode tun");
        ip("link set tun3 mtu 1400 group 2");
        let before = snapshot();
        let devices = devices(&host);
        let premade = || ClientDeviceRequest {
            unit: ClientUnit::Granted(unit(3)),
            ..request(&["10.9.0.2"])
        };
        let ClientDevice {
            device, changes, ..
        } = again(&devices, premade()).await.unwrap();
        assert!(snapshot().contains("10.9.0.1 peer 10.9.0.2"));
        drop(device);
        assert!(changes.undo().await.is_clean());
        assert_eq!(snapshot(), before);
        // Also if the process died.
        drop(again(&devices, premade()).await.unwrap());
        assert!(snapshot().contains("10.9.0.1 peer 10.9.0.2"));
        assert_eq!(host.recover().await.len(), 1);
        assert_eq!(snapshot(), before);
        // And if it failed half way.
        let taken = ClientDeviceRequest {
            sources: vec![
                "10.9.0.1/32".parse().unwrap(),
                "10.9.0.1/32".parse().unwrap(),
            ],
            ..premade()
        };
        let error = again(&devices, taken).await.unwrap_err();
        let there = matches!(error, ClientDeviceError::Net(NetError::Exists { .. }));
        assert!(there, "{error}");
        assert_eq!(snapshot(), before);
        assert!(host.files().is_empty());
    });
}

fn ethernet(clients: &[&str]) -> ClientDeviceRequest {
    ClientDeviceRequest {
        mode: Mode::Ethernet,
        ..request(clients)
    }
}

#[test]
fn an_ethernet_device_without_a_bridge_routes() {
    test_namespace::run(async {
        let host = Host::new();
        let devices = devices(&host);
        let behind = ClientDeviceRequest {
            sources: vec!["192.168.7.0/24".parse().unwrap()],
            ..ethernet(&["10.9.0.2"])
        };
        let opened = devices.open(behind.clone()).await.unwrap();
        assert_eq!(opened.device.name().as_str(), "tap0");
        assert!(ip("addr show tap0").contains("10.9.0.1 peer 10.9.0.2/32"));
        assert!(ip("route").contains("192.168.7.0/24 via 10.9.0.2 dev tap0"));
        let proxy = SysctlKey::ipv4(opened.device.name(), "proxy_arp").unwrap();
        assert_eq!(proxy.read().unwrap(), "1");
        close(opened);
        let opened = devices
            .open(ethernet(&["10.9.0.2", "fd09::2"]))
            .await
            .unwrap();
        assert!(ip("addr show tap0").contains("inet6 fe80::1/64"));
        let proxy = SysctlKey::ipv6(opened.device.name(), "proxy_ndp").unwrap();
        assert_eq!(proxy.read().unwrap(), "1");
        close(opened);
        let without = ClientDeviceRequest {
            addresses: vec![leased("fd09::2")],
            ..behind
        };
        let refused = devices.open(without).await.unwrap_err();
        assert!(
            matches!(refused, ClientDeviceError::NoGateway(_)),
            "{refused}"
        );
    });
}

#[test]
fn an_ethernet_device_joins_the_bridge() {
    test_namespace::run(async {
        let host = Host::new();
        ip("link add br0 type bridge");
        ip("link add br1 type bridge");
        ip("link add v0 type veth peer name v1");
        let devices = devices(&host);
        assert!(
            check_bridge(devices.netlink(), &"br0".parse().unwrap())
                .await
                .is_ok()
        );
        let wrong = check_bridge(devices.netlink(), &"v0".parse().unwrap())
            .await
            .unwrap_err();
        assert!(matches!(wrong, NetError::NotBridge(_)), "{wrong}");
        devices.set_bridge(Some("br0".parse().unwrap()));
        ip("link set v0 address f2:ff:ff:ff:ff:fe master br0");
        let opened = devices.open(ethernet(&["10.9.0.2"])).await.unwrap();
        // The bridge's own address stays.
        assert!(ip("link show br0").contains("f2:ff:ff:ff:ff:fe"));
        let link = ip("addr show tap0");
        assert!(
            link.contains("master br0") && !link.contains("inet "),
            "{link}"
        );
        assert!(opened.bridged.is_some());
        let port = ip("-d link show tap0");
        for there in ["learning off", "locked on", "isolated on"] {
            assert!(port.contains(there), "{there} in {port}");
        }
        close(opened);
        let grouped = ClientDeviceRequest {
            grouped: true,
            ..ethernet(&["10.9.0.2"])
        };
        let opened = devices.open(grouped).await.unwrap();
        assert!(ip("-d link show tap0").contains("isolated off"));
        close(opened);
        // A point-to-point client does not join the bridge.
        let opened = devices.open(request(&["10.9.0.2"])).await.unwrap();
        assert!(!ip("link show tun0").contains("master"));
        close(opened);
        // An existing device on another bridge returns to that bridge.
        ip("tuntap add dev tap4 mode tap");
        ip("link set tap4 master br1");
        let premade = || ClientDeviceRequest {
            unit: ClientUnit::Granted(unit(4)),
            ..ethernet(&[])
        };
        let ClientDevice {
            device, changes, ..
        } = again(&devices, premade()).await.unwrap();
        assert!(ip("link show tap4").contains("master br0"));
        assert!(changes.undo().await.is_clean());
        assert!(ip("link show tap4").contains("master br1"));
        drop(device);
        // One that is already on this bridge keeps its port, without the client's stations.
        ip("link set tap4 master br0");
        ip("link set tap4 type bridge_slave isolated on");
        let before = ip("-d link show tap4");
        let opened = again(&devices, premade()).await.unwrap();
        let netlink = devices.netlink();
        let port = &opened.bridged.as_ref().unwrap().link;
        let station = MacAddress([2, 0, 0, 0, 0, 7]);
        netlink.add_station(port, station).await.unwrap();
        assert!(ip("-d link show tap4").contains("learning off"));
        drop(opened.device);
        assert!(opened.changes.undo().await.is_clean());
        let stations = netlink.stations_at(port).await.unwrap();
        assert!(stations.iter().all(|found| found.own), "{stations:?}");
        let settings = |shown: &str| {
            let words = shown
                .split_whitespace()
                .skip_while(|word| *word != "bridge_slave");
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(settings(&ip("-d link show tap4")), settings(&before));
        ip("link set tap4 nomaster");
        drop(again(&devices, premade()).await.unwrap());
        host.recover().await;
        assert!(!ip("link show tap4").contains("master"));
        devices.set_bridge(Some("br9".parse().unwrap()));
        assert!(devices.open(ethernet(&[])).await.is_err());
        assert!(!ip("link").contains(" tap0"));
    });
}

#[test]
fn many_are_opened_at_once() {
    test_namespace::run(async {
        let host = Host::new();
        let devices = devices(&host);
        let opening = (2..102).map(|n| {
            let (ipv4, ipv6) = (format!("10.9.0.{n}"), format!("fd09::{n}"));
            let devices = &devices;
            async move { devices.open(request(&[&ipv4, &ipv6])).await.unwrap() }
        });
        let opened = futures_util::future::join_all(opening).await;
        assert_eq!(ip("-4 -o addr").matches("10.9.0.1 peer").count(), 100);
        let closing = opened.into_iter().map(
            |ClientDevice {
                 device, changes, ..
             }| {
                drop(device);
                changes.undo()
            },
        );
        let reports = futures_util::future::join_all(closing).await;
        assert!(reports.iter().all(UndoReport::is_clean));
    });
}

use nix::errno::Errno;

use super::socket::open;
use super::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn planned(list: &[&str]) -> Vec<String> {
    let plan = plan(&addresses(list));
    plan.iter().map(ToString::to_string).collect()
}

/// A port on which no socket listens.
fn free_port() -> u16 {
    let any = BlockingListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    any.local_addr().unwrap().port()
}

fn listeners(list: &[SocketAddr]) -> Listeners {
    Bound::open_new(list).unwrap().start().unwrap()
}

async fn reaches(listeners: &mut Listeners, at: SocketAddr) -> SocketAddr {
    let (client, (mut stream, peer)) = tokio::join!(TcpStream::connect(at), listeners.accept());
    let mut client = client.unwrap();
    client.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert_eq!(peer, client.local_addr().unwrap());
    peer
}

#[test]
fn the_wildcard_is_a_socket_for_each_family() {
    let both = ["0.0.0.0:22", "[::]:22"];
    assert_eq!(planned(&["[::]:22"]), both);
    assert_eq!(planned(&["[::]:22", "0.0.0.0:22", "[::]:22"]), both);
    assert_eq!(
        planned(&["[::]:22", "0.0.0.0:23"]),
        ["0.0.0.0:22", "0.0.0.0:23", "[::]:22"]
    );
}

#[test]
fn what_a_wildcard_covers_is_not_opened_again() {
    assert_eq!(
        planned(&["0.0.0.0:22", "192.0.2.1:22", "192.0.2.1:23"]),
        ["0.0.0.0:22", "192.0.2.1:23"]
    );
    assert_eq!(
        planned(&["[::]:22", "192.0.2.1:22", "[2001:db8::1]:22"]),
        ["0.0.0.0:22", "[::]:22"]
    );
}

#[tokio::test]
async fn the_wildcard_takes_clients_of_both_families_and_names_them_as_they_are() {
    let port = free_port();
    let mut listeners = listeners(&[(Ipv6Addr::UNSPECIFIED, port).into()]);
    let v4 = reaches(&mut listeners, (Ipv4Addr::LOCALHOST, port).into()).await;
    assert_eq!(v4.ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
    let v6 = reaches(&mut listeners, (Ipv6Addr::LOCALHOST, port).into()).await;
    assert_eq!(v6.ip(), IpAddr::from(Ipv6Addr::LOCALHOST));
}

#[tokio::test]
async fn several_are_all_listened_to() {
    let mut listeners = listeners(&addresses(&["127.0.0.1:0", "[::1]:0"]));
    let all = listeners.addresses();
    assert_eq!(all.len(), 2);
    for address in all.iter().chain(all.iter().rev()) {
        reaches(&mut listeners, *address).await;
    }
}

#[tokio::test]
async fn a_reload_keeps_opens_and_closes() {
    let [kept, new] = [free_port(), free_port()].map(|port| (Ipv4Addr::LOCALHOST, port).into());
    let mut listeners = listeners(&[kept]);
    let held = TcpStream::connect(kept).await.unwrap();
    let opened = listeners.open(&[kept, new]).unwrap();
    listeners.take(opened);
    // Connections that wait in a socket that stays are not lost.
    let (_stream, peer) = listeners.accept().await;
    assert_eq!(peer, held.local_addr().unwrap());
    reaches(&mut listeners, new).await;
    let opened = listeners.open(&[new]).unwrap();
    listeners.take(opened);
    assert!(TcpStream::connect(kept).await.is_err());
    reaches(&mut listeners, new).await;
}

/// The inodes of the open sockets; a socket that stayed keeps its inode.
fn inodes(listeners: &Listeners) -> Vec<u64> {
    let inode = |one: &Listener| nix::sys::stat::fstat(&one.listener).unwrap().st_ino;
    listeners.open.iter().map(inode).collect()
}

#[tokio::test]
async fn a_reload_from_one_family_to_both_leaves_the_first_alone() {
    let port = free_port();
    let one = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let mut listeners = listeners(&[one]);
    let v4 = inodes(&listeners);
    let waiting = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let waiting = waiting.unwrap().local_addr().unwrap();
    let opened = listeners.open(&[both]).unwrap();
    listeners.take(opened);
    assert_eq!(listeners.addresses(), [both]);
    assert_eq!(listeners.accept().await.1, waiting);
    reaches(&mut listeners, (Ipv6Addr::LOCALHOST, port).into()).await;
    reaches(&mut listeners, (Ipv4Addr::LOCALHOST, port).into()).await;
    assert_eq!(inodes(&listeners)[..1], v4);
    let opened = listeners.open(&[one]).unwrap();
    listeners.take(opened);
    assert_eq!((listeners.addresses(), inodes(&listeners)), (vec![one], v4));
    assert!(
        TcpStream::connect((Ipv6Addr::LOCALHOST, port))
            .await
            .is_err()
    );
    reaches(&mut listeners, (Ipv4Addr::LOCALHOST, port).into()).await;
}

#[tokio::test]
async fn one_address_and_all_of_them_take_turns_without_a_gap() {
    let port = free_port();
    let one = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let mut listeners = listeners(&[one]);
    for addresses in [[all], [one], [all]] {
        // The connection waits in the socket that is closed.
        let waiting = TcpStream::connect(one).await.unwrap();
        let opened = listeners.open(&addresses).unwrap();
        listeners.take(opened);
        assert_eq!(listeners.addresses(), addresses);
        let (_stream, peer) = listeners.accept().await;
        assert_eq!(peer, waiting.local_addr().unwrap());
        reaches(&mut listeners, one).await;
        // Another server still finds the address in use.
        let shared = open(one, false).unwrap_err();
        assert_eq!(shared.kind(), io::ErrorKind::AddrInUse);
    }
}

#[tokio::test]
async fn sockets_that_are_closed_refuse_and_those_of_somebody_else_stay() {
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut own_listeners = listeners(&[own]);
    own_listeners.close();
    let refused = TcpStream::connect(own).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    let managers = BlockingListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let given = Bound {
        sockets: vec![(None, managers.try_clone().unwrap())],
    };
    let mut given = given.start().unwrap();
    given.close();
    let waits = TcpStream::connect(managers.local_addr().unwrap()).await;
    managers.set_nonblocking(false).unwrap();
    let (_next, peer) = managers.accept().unwrap();
    assert_eq!(peer, waits.unwrap().local_addr().unwrap());
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let taken = BlockingListener::bind("[::1]:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    // The same port of the other family is unaffected, though it would be closed.
    let before = SocketAddr::from((Ipv4Addr::LOCALHOST, taken.1.port()));
    let mut listeners = listeners(&[before]);
    let error = listeners.open(&[taken.1]).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    assert!(matches!(listeners.open(&[]), Err(ListenError::Nothing)));
    reaches(&mut listeners, before).await;
    // Nor if it would have to share the port with one of our sockets.
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, before.port()));
    let sockets = inodes(&listeners);
    assert!(listeners.open(&[all, taken.1]).is_err());
    assert_eq!(
        (listeners.addresses(), inodes(&listeners)),
        (vec![before], sockets)
    );
    reaches(&mut listeners, before).await;
}

#[test]
fn errors_say_what_to_do() {
    let taken = BlockingListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Bound::open_new(&[address]).unwrap_err().to_string();
    assert!(error.contains("another port"), "{error}");
    let foreign = Bound::open_new(&addresses(&["192.0.2.77:2222"])).unwrap_err();
    assert!(matches!(foreign, ListenError::NotHere { .. }), "{foreign}");
    let denied = io::Error::from_raw_os_error(Errno::EACCES as i32);
    let denied = ListenError::new(address, denied).to_string();
    assert!(denied.contains("CAP_NET_BIND_SERVICE"), "{denied}");
}

use super::*;
use std::net::{IpAddr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn planned(list: &[&str]) -> Vec<(String, bool)> {
    let plan = plan(&addresses(list));
    let told = |one: &Wanted| (one.address.to_string(), one.only_v6);
    plan.iter().map(told).collect()
}

/// A port that nobody listens at.
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
fn the_wildcard_is_for_both_families_unless_ipv4_is_asked_for_by_itself() {
    assert_eq!(planned(&["[::]:22"]), [("[::]:22".to_owned(), false)]);
    assert_eq!(
        planned(&["[::]:22", "0.0.0.0:22", "[::]:22"]),
        [
            ("0.0.0.0:22".to_owned(), false),
            ("[::]:22".to_owned(), true)
        ]
    );
    assert_eq!(
        planned(&["[::]:22", "0.0.0.0:23"]),
        [
            ("0.0.0.0:23".to_owned(), false),
            ("[::]:22".to_owned(), false)
        ]
    );
}

#[test]
fn what_a_wildcard_covers_is_not_opened_again() {
    assert_eq!(
        planned(&["0.0.0.0:22", "192.0.2.1:22", "192.0.2.1:23"]),
        [
            ("0.0.0.0:22".to_owned(), false),
            ("192.0.2.1:23".to_owned(), false)
        ]
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
    listeners.replace(&[kept, new]).unwrap();
    // What waited in a socket that stays is not lost.
    let (_stream, peer) = listeners.accept().await;
    assert_eq!(peer, held.local_addr().unwrap());
    reaches(&mut listeners, new).await;
    listeners.replace(&[new]).unwrap();
    assert!(TcpStream::connect(kept).await.is_err());
    reaches(&mut listeners, new).await;
}

#[tokio::test]
async fn a_reload_may_go_from_one_family_to_both_at_one_port() {
    let port = free_port();
    let one = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let mut listeners = listeners(&[one]);
    listeners.replace(&[both]).unwrap();
    reaches(&mut listeners, (Ipv6Addr::LOCALHOST, port).into()).await;
    listeners.replace(&[both, one]).unwrap();
    reaches(&mut listeners, (Ipv6Addr::LOCALHOST, port).into()).await;
    reaches(&mut listeners, (Ipv4Addr::LOCALHOST, port).into()).await;
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let taken = BlockingListener::bind("[::1]:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    // The same port of the other family: it is in nobody's way, but would go.
    let before = SocketAddr::from((Ipv4Addr::LOCALHOST, taken.1.port()));
    let mut listeners = listeners(&[before]);
    let error = listeners.replace(&[taken.1]).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    assert!(matches!(listeners.replace(&[]), Err(ListenError::Nothing)));
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

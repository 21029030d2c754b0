//! The proxy between two ends that say exactly what the test wants.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use windlass_chaos::proxy::{Armed, Cut, Proxy, Tls};

const OPENING: [u8; 8] = [0, 0, 0, 8, 0, 3, 0, 0];
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const READY: &[u8] = b"Z\0\0\0\x05I";

struct Ends {
    proxy: Proxy,
    client: TcpStream,
    server: TcpStream,
}

async fn ends(tls: Tls) -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let upstream = listener.local_addr().expect("an address").to_string();
    let proxy = Proxy::start(upstream, tls).await.expect("a proxy");
    let client = TcpStream::connect(proxy.address()).await.expect("a connection");
    let (server, _) = listener.accept().await.expect("the proxy connects");
    Ends { proxy, client, server }
}

/// A conversation that is open: the server was ready once.
async fn open() -> Ends {
    let mut ends = ends(Tls::Refuse).await;
    ends.client.write_all(&OPENING).await.expect("sent");
    heard(&mut ends.server, &OPENING).await;
    ends.server.write_all(READY).await.expect("sent");
    heard(&mut ends.client, READY).await;
    ends
}

fn query(sql: &str) -> Vec<u8> {
    let mut bytes = vec![b'Q'];
    bytes.extend((sql.len() as u32 + 5).to_be_bytes());
    bytes.extend(sql.as_bytes());
    bytes.push(0);
    bytes
}

fn complete(tag: &str) -> Vec<u8> {
    let mut bytes = query(tag);
    bytes[0] = b'C';
    bytes.extend(READY);
    bytes
}

async fn heard(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).await.expect("all of it");
    assert_eq!(bytes, expected);
}

/// What still comes until the connection is over.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset says as well that it is over.
    let _over = stream.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn before_a_commit_the_server_hears_nothing_of_it() {
    let mut ends = open().await;
    ends.proxy.arm(Armed { cut: Cut::Before, mentions: String::new() });
    let (insert, commit) = (query("BEGIN; INSERT INTO a VALUES (1)"), query("COMMIT"));
    ends.client.write_all(&insert).await.expect("sent");
    heard(&mut ends.server, &insert).await;
    let mut inside = complete("INSERT 0 1");
    inside.pop();
    inside.push(b'T');
    ends.server.write_all(&inside).await.expect("sent");
    heard(&mut ends.client, &inside).await;
    ends.client.write_all(&commit).await.expect("sent");
    assert_eq!(rest(&mut ends.client).await, b"");
    assert_eq!(rest(&mut ends.server).await, b"", "no byte of the commit");
    let counts = ends.proxy.counts();
    assert_eq!((counts.cut_before, counts.cut_after, counts.commits), (1, 0, 1));
}

#[tokio::test]
async fn after_a_commit_the_client_hears_nothing_of_it() {
    let mut ends = open().await;
    ends.proxy.arm(Armed { cut: Cut::After, mentions: "journal".into() });
    let other = query("UPDATE workers SET seen = 1");
    ends.client.write_all(&other).await.expect("sent");
    heard(&mut ends.server, &other).await;
    ends.server.write_all(&complete("UPDATE 1")).await.expect("sent");
    heard(&mut ends.client, &complete("UPDATE 1")).await;
    let fits = query("INSERT INTO journal VALUES (1)");
    ends.client.write_all(&fits).await.expect("sent");
    heard(&mut ends.server, &fits).await;
    ends.server.write_all(&complete("INSERT 0 1")).await.expect("sent");
    assert_eq!(rest(&mut ends.client).await, b"", "no byte of the answer");
    assert_eq!(ends.proxy.counts().cut_after, 1);
}

#[tokio::test]
async fn a_commit_that_the_server_refuses_is_no_cut() {
    let mut ends = open().await;
    ends.proxy.arm(Armed { cut: Cut::After, mentions: String::new() });
    let insert = query("INSERT INTO a VALUES (1)");
    ends.client.write_all(&insert).await.expect("sent");
    heard(&mut ends.server, &insert).await;
    let mut refusal = query("SERROR");
    refusal[0] = b'E';
    refusal.extend(READY);
    ends.server.write_all(&refusal).await.expect("sent");
    heard(&mut ends.client, &refusal).await;
    ends.client.write_all(&insert).await.expect("sent");
    heard(&mut ends.server, &insert).await;
    let counts = ends.proxy.counts();
    assert_eq!((counts.cut_after, counts.missed), (0, 1));
}

#[tokio::test]
async fn encryption_is_refused_or_carried_blindly() {
    let mut refused = ends(Tls::Refuse).await;
    refused.client.write_all(&SSL_REQUEST).await.expect("sent");
    heard(&mut refused.client, b"N").await;
    refused.client.write_all(&OPENING).await.expect("sent");
    heard(&mut refused.server, &OPENING).await;

    let mut passed = ends(Tls::Pass).await;
    passed.proxy.arm(Armed { cut: Cut::Before, mentions: String::new() });
    passed.client.write_all(&SSL_REQUEST).await.expect("sent");
    heard(&mut passed.server, &SSL_REQUEST).await;
    passed.server.write_all(b"S").await.expect("sent");
    heard(&mut passed.client, b"S").await;
    for _ in 0..2 {
        passed.client.write_all(&query("INSERT INTO a VALUES (1)")).await.expect("sent");
        heard(&mut passed.server, &query("INSERT INTO a VALUES (1)")).await;
    }
    assert_eq!(passed.proxy.counts().commits, 0, "nobody looked");
}

#[tokio::test]
async fn a_partition_keeps_everything_and_ends_with_a_cut() {
    let mut ends = open().await;
    ends.proxy.stall(true);
    ends.client.write_all(&query("SELECT 1")).await.expect("sent");
    let mut byte = [0];
    // Slow on purpose: that nothing comes shows only after some time.
    let nothing = tokio::time::timeout(Duration::from_millis(50), ends.server.read(&mut byte)).await;
    assert!(nothing.is_err(), "nothing passes");
    ends.proxy.stall(false);
    heard(&mut ends.server, &query("SELECT 1")).await;
    assert_eq!(ends.proxy.partition(Duration::ZERO).await, 1);
    assert_eq!((rest(&mut ends.client).await, rest(&mut ends.server).await), (vec![], vec![]));
    let mut counts = ends.proxy.watch();
    let counts = counts.wait_for(|counts| counts.open == 0).await.expect("counts");
    assert_eq!(counts.cut_open, 1);
}

#[tokio::test]
async fn new_connections_are_refused_and_old_ones_go_on() {
    let mut ends = open().await;
    ends.proxy.refuse(true);
    let mut late = TcpStream::connect(ends.proxy.address()).await.expect("taken and reset");
    assert_eq!(rest(&mut late).await, b"");
    ends.client.write_all(&query("SELECT 1")).await.expect("sent");
    heard(&mut ends.server, &query("SELECT 1")).await;
    assert_eq!(ends.proxy.counts().refused, 1);
    ends.proxy.heal();
    assert!(TcpStream::connect(ends.proxy.address()).await.is_ok());
}

#[tokio::test]
async fn what_is_no_conversation_ends_the_connection() {
    let mut ends = ends(Tls::Refuse).await;
    ends.client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    assert_eq!(rest(&mut ends.client).await, b"");
}

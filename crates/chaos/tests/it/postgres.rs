//! The proxy before a real server: what is cut before a commit is gone, what is cut after it is there, and the client
//! cannot tell one from the other.

use tokio_postgres::{Client, NoTls};
use windlass_chaos::proxy::{Address, Armed, Cut, Proxy, Tls};
use windlass_testpg::Database;

async fn connect(proxy: &Proxy, database: &Database) -> Client {
    let url = Address::parse(&database.url()).expect("an address").through(proxy.address());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn world() -> (Database, Proxy) {
    let database = windlass_testpg::database();
    database.execute("CREATE TABLE journal (n bigint PRIMARY KEY); CREATE TABLE other (n bigint)").expect("tables");
    let upstream = Address::parse(&database.url()).expect("an address").upstream();
    let proxy = Proxy::start(upstream, Tls::Refuse).await.expect("a proxy");
    (database, proxy)
}

fn armed(cut: Cut) -> Armed {
    Armed { cut, mentions: "journal".into() }
}

/// How a transaction is written.
#[derive(Clone, Copy, Debug)]
enum Way {
    Texts,
    OneText,
    Prepared,
    Unnamed,
    NoBlock,
    Pipelined,
}

const WAYS: [Way; 6] = [Way::Texts, Way::OneText, Way::Prepared, Way::Unnamed, Way::NoBlock, Way::Pipelined];

async fn write(client: &mut Client, way: Way, n: i64) -> Result<(), tokio_postgres::Error> {
    let int = tokio_postgres::types::Type::INT8;
    let insert = "INSERT INTO journal VALUES ($1)";
    match way {
        Way::Texts => {
            client.batch_execute("BEGIN").await?;
            client.batch_execute(&format!("INSERT INTO journal VALUES ({n})")).await?;
            client.batch_execute("COMMIT").await
        }
        Way::OneText => client.batch_execute(&format!("BEGIN; INSERT INTO journal VALUES ({n}); COMMIT")).await,
        Way::Prepared => {
            let transaction = client.transaction().await?;
            let statement = transaction.prepare(insert).await?;
            transaction.execute(&statement, &[&n]).await?;
            transaction.commit().await
        }
        Way::Unnamed => {
            for sql in ["BEGIN", insert, "COMMIT"] {
                if sql == insert {
                    client.query_typed(sql, &[(&n, int.clone())]).await?;
                } else {
                    client.query_typed(sql, &[]).await?;
                }
            }
            Ok(())
        }
        Way::NoBlock => client.query_typed(insert, &[(&n, int)]).await.map(|_| ()),
        Way::Pipelined => {
            let parameters = [(&n as &(dyn tokio_postgres::types::ToSql + Sync), int)];
            let begin = client.query_typed("BEGIN", &[]);
            let write = client.query_typed(insert, &parameters);
            let commit = client.query_typed("COMMIT", &[]);
            let (begin, write, commit) = tokio::join!(begin, write, commit);
            begin.and(write).and(commit).map(|_| ())
        }
    }
}

#[tokio::test]
async fn a_cut_at_a_commit_leaves_all_of_it_or_nothing() {
    let (database, proxy) = world().await;
    for (at, way) in WAYS.into_iter().enumerate() {
        for (cut, expected) in [(Cut::Before, 0), (Cut::After, 1)] {
            let n = (at as i64) * 10 + expected;
            let before = proxy.counts();
            proxy.arm(armed(cut));
            let mut client = connect(&proxy, &database).await;
            client.batch_execute("INSERT INTO other VALUES (1)").await.expect("it is not meant");
            let error = write(&mut client, way, n).await.expect_err("cut");
            assert!(error.code().is_none(), "{way:?} {cut:?}: the server said nothing: {error}");
            let counts = proxy.counts();
            let landed = (counts.cut_before - before.cut_before, counts.cut_after - before.cut_after);
            assert_eq!(landed, if cut == Cut::Before { (1, 0) } else { (0, 1) }, "{way:?} {cut:?}");
            let rows = database.value(&format!("SELECT count(*) FROM journal WHERE n = {n}"));
            assert_eq!(rows, expected.to_string(), "{way:?} {cut:?}");
        }
    }
}

#[tokio::test]
async fn without_a_cut_nothing_changes_on_the_way() {
    let (database, proxy) = world().await;
    let mut client = connect(&proxy, &database).await;
    for (n, way) in WAYS.into_iter().enumerate() {
        write(&mut client, way, n as i64).await.expect("written");
    }
    let large = "x".repeat(3_000_000);
    let back = client.query_typed("SELECT $1", &[(&large, tokio_postgres::types::Type::TEXT)]).await.expect("a row");
    assert_eq!(back[0].get::<_, String>(0), large);
    assert_eq!(proxy.counts().commits, WAYS.len() as u64);
    assert_eq!(database.value("SELECT count(*) FROM journal"), WAYS.len().to_string());
}

#[tokio::test]
async fn a_refused_commit_is_told_and_the_cut_waits_for_no_other() {
    let (database, proxy) = world().await;
    let mut client = connect(&proxy, &database).await;
    write(&mut client, Way::Texts, 1).await.expect("written");
    proxy.arm(armed(Cut::After));
    let error = write(&mut client, Way::NoBlock, 1).await.expect_err("the key is taken");
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("23505"));
    assert_eq!(proxy.counts().missed, 1);
    write(&mut client, Way::NoBlock, 2).await.expect("written");
}

#[tokio::test]
async fn open_transactions_are_rolled_back_when_everything_is_cut() {
    let (database, proxy) = world().await;
    let mut client = connect(&proxy, &database).await;
    let transaction = client.transaction().await.expect("begun");
    transaction.batch_execute("INSERT INTO journal VALUES (1)").await.expect("written");
    assert_eq!(proxy.cut_all(), 1);
    assert!(transaction.commit().await.is_err());
    assert_eq!(database.value("SELECT count(*) FROM journal"), "0");
}

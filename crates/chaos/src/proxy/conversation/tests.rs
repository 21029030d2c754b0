//! What a conversation makes of frames, without a network.

use super::*;
use crate::proxy::wire::Framer;

fn frame(tag: u8, body: &[u8]) -> Frame {
    let mut framer = Framer::typed();
    let buffer = framer.buffer();
    buffer.extend_from_slice(&[tag]);
    buffer.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    buffer.extend_from_slice(body);
    framer.next().expect("a message").expect("all of it")
}

fn open() -> Conversation {
    let mut conversation = Conversation::default();
    assert!(matches!(conversation.heard(&frame(b'R', &[0, 0, 0, 0])), Heard::Pass(_)));
    assert!(matches!(conversation.heard(&frame(b'Z', b"I")), Heard::Pass(_)));
    conversation
}

fn query(conversation: &mut Conversation, sql: &str) -> Said {
    conversation.said(&frame(b'Q', format!("{sql}\0").as_bytes()))
}

/// Parse, Bind and Execute of an unnamed statement.
fn extended(conversation: &mut Conversation, sql: &str) -> Said {
    assert_eq!(conversation.said(&frame(b'P', format!("\0{sql}\0\0\0").as_bytes())), Said::Plain);
    assert_eq!(conversation.said(&frame(b'B', b"\0\0\0\0\0\0\0\0")), Said::Plain);
    conversation.said(&frame(b'E', b"\0\0\0\0\0"))
}

fn sync(conversation: &mut Conversation) -> Said {
    conversation.said(&frame(b'S', b""))
}

fn ready(conversation: &mut Conversation, status: &[u8]) -> Heard {
    conversation.heard(&frame(b'Z', status))
}

#[test]
fn a_commit_of_a_block_that_wrote_is_one() {
    let mut conversation = open();
    assert_eq!(query(&mut conversation, "BEGIN"), Said::Plain);
    ready(&mut conversation, b"T");
    assert_eq!(query(&mut conversation, "INSERT INTO a VALUES (1)"), Said::Plain);
    ready(&mut conversation, b"T");
    assert_eq!(query(&mut conversation, "COMMIT"), Said::Commits);
    assert!(conversation.transaction().contains("INTO a"));
    ready(&mut conversation, b"I");
    query(&mut conversation, "BEGIN");
    query(&mut conversation, "SELECT 1");
    assert_eq!(query(&mut conversation, "COMMIT"), Said::Plain, "nothing was written");
    assert!(!conversation.transaction().contains("INTO a"));
}

#[test]
fn all_of_it_may_be_one_message() {
    assert_eq!(query(&mut open(), "BEGIN; UPDATE a SET b = 1; COMMIT"), Said::Commits);
    assert_eq!(query(&mut open(), "BEGIN; UPDATE a SET b = 1; ROLLBACK"), Said::Plain);
    assert_eq!(query(&mut open(), "BEGIN; UPDATE a SET b = 1"), Said::Plain);
}

#[test]
fn a_statement_outside_of_a_block_commits_at_the_end_of_its_exchange() {
    let mut conversation = open();
    assert_eq!(query(&mut conversation, "UPDATE a SET b = 1"), Said::Commits);
    ready(&mut conversation, b"I");
    assert_eq!(extended(&mut conversation, "WITH x AS (DELETE FROM a RETURNING b) SELECT * FROM x"), Said::Plain);
    assert_eq!(sync(&mut conversation), Said::Commits);
    ready(&mut conversation, b"I");
    assert_eq!(extended(&mut conversation, "SELECT 1"), Said::Plain);
    assert_eq!(sync(&mut conversation), Said::Plain);
}

#[test]
fn a_block_of_unnamed_statements_commits_where_commit_is_executed() {
    let mut conversation = open();
    for sql in ["BEGIN", "INSERT INTO a VALUES ($1)"] {
        assert_eq!(extended(&mut conversation, sql), Said::Plain);
        assert_eq!(sync(&mut conversation), Said::Plain);
    }
    assert_eq!(extended(&mut conversation, "COMMIT"), Said::Commits);
    assert_eq!(sync(&mut conversation), Said::Plain);
}

#[test]
fn named_statements_and_portals_are_followed() {
    let mut conversation = open();
    conversation.said(&frame(b'P', b"w\0INSERT INTO a VALUES (1)\0\0\0"));
    conversation.said(&frame(b'P', b"r\0SELECT 1\0\0\0"));
    conversation.said(&frame(b'B', b"one\0r\0\0\0\0\0\0\0"));
    conversation.said(&frame(b'E', b"one\0\0\0\0\0"));
    assert_eq!(sync(&mut conversation), Said::Plain);
    conversation.said(&frame(b'B', b"two\0w\0\0\0\0\0\0\0"));
    conversation.said(&frame(b'E', b"two\0\0\0\0\0"));
    assert_eq!(sync(&mut conversation), Said::Commits);
}

#[test]
fn only_the_answer_to_the_commit_is_kept_back() {
    let mut conversation = open();
    // Three exchanges on their way at once; the second commits.
    query(&mut conversation, "SELECT 1");
    assert_eq!(query(&mut conversation, "UPDATE a SET b = 1"), Said::Commits);
    conversation.keep(b'Q');
    assert!(conversation.is_waiting());
    for tag in *b"TDC" {
        assert!(matches!(conversation.heard(&frame(tag, b"SELECT 1\0")), Heard::Pass(_)));
    }
    assert!(matches!(ready(&mut conversation, b"I"), Heard::Pass(_)));
    assert_eq!(conversation.heard(&frame(b'C', b"UPDATE 1\0")), Heard::Kept);
    assert_eq!(ready(&mut conversation, b"I"), Heard::Committed);
}

#[test]
fn the_rest_of_an_exchange_that_executes_commit_is_still_said() {
    let mut conversation = open();
    extended(&mut conversation, "BEGIN");
    extended(&mut conversation, "DELETE FROM a");
    assert_eq!(extended(&mut conversation, "COMMIT"), Said::Commits);
    conversation.keep(b'E');
    assert!(!conversation.is_waiting(), "the server has not been told to answer");
    sync(&mut conversation);
    assert!(conversation.is_waiting());
    assert_eq!(conversation.heard(&frame(b'C', b"COMMIT\0")), Heard::Kept);
    assert_eq!(ready(&mut conversation, b"I"), Heard::Committed);
}

#[test]
fn a_commit_that_the_server_refuses_is_told() {
    for refusal in [frame(b'E', b"SERROR\0\0"), frame(b'C', b"ROLLBACK\0")] {
        let mut conversation = open();
        query(&mut conversation, "BEGIN; DELETE FROM a");
        ready(&mut conversation, b"E");
        conversation.wrote = true;
        assert_eq!(query(&mut conversation, "COMMIT"), Said::Commits);
        conversation.keep(b'Q');
        assert_eq!(conversation.heard(&refusal), Heard::Kept);
        let Heard::Released(frames) = ready(&mut conversation, b"I") else { panic!("released") };
        assert_eq!(frames.len(), 2);
        assert!(matches!(conversation.heard(&frame(b'S', b"a\0b\0")), Heard::Pass(_)));
    }
}

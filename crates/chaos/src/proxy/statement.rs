//! What a text of statements does to a transaction: begins it, commits it, rolls it back, writes, or none of these.
//! Tells statements apart by their first words; it is no parser of SQL.

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Opens a transaction.
    Begin,
    /// Ends one and keeps what it wrote.
    Commit,
    /// Ends one and drops what it wrote.
    RollBack,
    /// Changes something.
    Write,
    /// Anything else.
    Other,
}

/// What each statement of a text does.
pub(crate) fn of(text: &str) -> Vec<Does> {
    split(text).into_iter().map(one).collect()
}

fn one(statement: String) -> Does {
    let upper = statement.to_ascii_uppercase();
    let mut words = upper.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    match words.next().unwrap_or_default() {
        "BEGIN" | "START" => Does::Begin,
        "COMMIT" | "END" => Does::Commit,
        "ROLLBACK" if words.next() == Some("TO") => Does::Other,
        "ROLLBACK" | "ABORT" => Does::RollBack,
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "CALL" | "COPY" => {
            Does::Write
        }
        "WITH" | "SELECT" | "EXPLAIN" if writes(&upper) => Does::Write,
        _ => Does::Other,
    }
}

/// Whether a statement with other statements inside has one that writes. `FOR UPDATE` locks and writes nothing.
fn writes(upper: &str) -> bool {
    let words: Vec<&str> =
        upper.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    words.windows(2).any(|pair| matches!(pair, ["INSERT" | "MERGE", "INTO"] | ["DELETE", "FROM"]))
        || words.iter().enumerate().any(|(at, word)| {
            *word == "UPDATE" && !matches!(words.get(at.wrapping_sub(1)), Some(&("FOR" | "KEY" | "DO")))
        })
}

/// The statements of a text without what is quoted and without comments.
fn split(text: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '\'' | '"' => quoted(rest, c),
            '-' if rest.starts_with("--") => rest.find('\n').map_or(rest.len(), |end| end + 1),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '$' => dollar_quoted(rest),
            _ => 0,
        };
        if skipped > 0 {
            rest = &rest[skipped..];
            push(&mut statements, ' ');
            continue;
        }
        if c == ';' {
            statements.push(String::new());
        } else {
            push(&mut statements, c);
        }
        rest = &rest[c.len_utf8()..];
    }
    statements.retain(|statement| !statement.trim().is_empty());
    statements
}

fn push(statements: &mut [String], c: char) {
    if let Some(last) = statements.last_mut() {
        last.push(c);
    }
}

/// Bytes of what is quoted at the start of a text.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |end| end + 2)
}

/// Bytes of what is quoted by `$tag$` at the start of a text; 0 when it is a parameter.
fn dollar_quoted(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 0 };
    let tag = &text[..end + 2];
    let is_tag = tag[1..=end].chars().all(|c| c.is_alphanumeric() || c == '_')
        && !tag[1..].starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return 0;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart() {
        for (text, expected) in [
            ("BEGIN", vec![Does::Begin]),
            ("  /* now */ commit ;", vec![Does::Commit]),
            ("-- done\nEND", vec![Does::Commit]),
            (
                "START TRANSACTION; INSERT INTO a VALUES ('; COMMIT'); COMMIT",
                vec![Does::Begin, Does::Write, Does::Commit],
            ),
            ("ROLLBACK TO SAVEPOINT a", vec![Does::Other]),
            ("ROLLBACK", vec![Does::RollBack]),
            ("SELECT * FROM runs FOR UPDATE SKIP LOCKED", vec![Does::Other]),
            ("SELECT * FROM runs FOR NO KEY UPDATE", vec![Does::Other]),
            ("WITH a AS (SELECT 1) SELECT * FROM a", vec![Does::Other]),
            ("WITH a AS (UPDATE runs SET x = $1 RETURNING id) SELECT * FROM a", vec![Does::Write]),
            ("WITH a AS (SELECT $1) INSERT INTO b SELECT * FROM a ON CONFLICT DO NOTHING", vec![Does::Write]),
            ("SELECT $a$; DELETE FROM b$a$; COMMIT", vec![Does::Other, Does::Commit]),
            ("SELECT \"a;b\", $1, $2", vec![Does::Other]),
            ("", vec![]),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}

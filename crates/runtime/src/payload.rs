//! Moves large values out of the bytes of a record, and back in, without reading what they mean.
//!
//! A moved value leaves `{"$blob":"<hash>"}` behind. A mapping of a user that has such a key keeps it: while values are
//! out, every key of dollars and `blob` carries one dollar more. Works on the text, so numbers keep their digits.

use std::borrow::Cow;

use windlass_core::ids::Digest;
use windlass_core::limits::INLINE_BYTES_MAX;

/// Nesting below which text is walked. Values are bounded far below it.
const DEPTH_MAX: usize = 512;
/// The key that stands for a moved value.
const MARK: &[u8] = b"$blob";

/// A record's bytes after large values have moved out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// What is stored in the journal row.
    pub bytes: Vec<u8>,
    /// What moved out, by hash; each once.
    pub blobs: Vec<(Digest, Vec<u8>)>,
}

/// Why a record cannot be put together again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A value that was moved out is not in the store.
    #[error("the blob `{0}` is missing")]
    Missing(Digest),
    /// The bytes are not what was written.
    #[error("the record is not well-formed at byte {0}")]
    Malformed(usize),
}

/// Moves every value of more than [`INLINE_BYTES_MAX`] bytes out of a record that is larger than that. Smaller parts
/// move before what contains them, so an unchanged large value has the same blob in every record.
#[must_use]
pub fn externalize(bytes: Vec<u8>) -> External {
    if bytes.len() <= INLINE_BYTES_MAX {
        return External { bytes, blobs: Vec::new() };
    }
    let mut walk = Walk { text: &bytes, at: 0, out: Vec::with_capacity(INLINE_BYTES_MAX) };
    let mut blobs: Vec<(Digest, Vec<u8>)> = Vec::new();
    let walked = walk.value(0, &mut Out(&mut blobs));
    if walked.is_err() || blobs.is_empty() {
        return External { bytes, blobs: Vec::new() };
    }
    let moved = walk.out;
    External { bytes: moved, blobs }
}

/// Puts the values that moved out back in. `blobs` are the hashes listed with the row; without any, the bytes are as
/// they were written.
///
/// # Errors
/// A blob that `lookup` does not have, or bytes that are no JSON.
pub fn internalize<'a>(
    bytes: &'a [u8],
    blobs: &[Digest],
    lookup: &dyn Fn(&Digest) -> Option<Vec<u8>>,
) -> Result<Cow<'a, [u8]>, PayloadError> {
    if blobs.is_empty() {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut walk = Walk { text: bytes, at: 0, out: Vec::with_capacity(bytes.len() * 4) };
    walk.value(0, &mut In(lookup))?;
    Ok(Cow::Owned(walk.out))
}

/// What is done at keys and values while text is walked.
trait Visit {
    /// Whether a reference is followed rather than copied.
    fn resolves(&self) -> bool;
    /// The bytes of a reference's value, as stored.
    fn resolve(&self, digest: &Digest) -> Option<Vec<u8>>;
    /// Writes a key of dollars and `blob`.
    fn marked_key(&self, key: &[u8], out: &mut Vec<u8>);
    /// Called after a value below the top was written from `start` on.
    fn written(&mut self, start: usize, out: &mut Vec<u8>);
}

struct Out<'a>(&'a mut Vec<(Digest, Vec<u8>)>);

impl Visit for Out<'_> {
    fn resolves(&self) -> bool {
        false
    }

    fn resolve(&self, _: &Digest) -> Option<Vec<u8>> {
        None
    }

    fn marked_key(&self, key: &[u8], out: &mut Vec<u8>) {
        out.push(b'$');
        out.extend_from_slice(key);
    }

    fn written(&mut self, start: usize, out: &mut Vec<u8>) {
        if out.len() - start <= INLINE_BYTES_MAX {
            return;
        }
        let blob = out.split_off(start);
        let digest = Digest::of(&blob);
        out.extend_from_slice(format!("{{\"$blob\":\"{digest}\"}}").as_bytes());
        if !self.0.iter().any(|(known, _)| *known == digest) {
            self.0.push((digest, blob));
        }
    }
}

struct In<'a>(&'a dyn Fn(&Digest) -> Option<Vec<u8>>);

impl Visit for In<'_> {
    fn resolves(&self) -> bool {
        true
    }

    fn resolve(&self, digest: &Digest) -> Option<Vec<u8>> {
        (self.0)(digest)
    }

    fn marked_key(&self, key: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(key.strip_prefix(b"$").unwrap_or(key));
    }

    fn written(&mut self, _: usize, _: &mut Vec<u8>) {}
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl Walk<'_> {
    fn value(&mut self, depth: usize, visit: &mut dyn Visit) -> Result<(), PayloadError> {
        if depth > DEPTH_MAX {
            return Err(self.malformed());
        }
        let start = self.out.len();
        match self.peek()? {
            b'{' => self.map(depth, visit)?,
            b'[' => self.list(depth, visit)?,
            b'"' => {
                let end = self.string_end()?;
                self.copy_to(end);
            }
            _ => {
                let rest = &self.text[self.at..];
                let length = rest.iter().position(|b| matches!(b, b',' | b']' | b'}')).unwrap_or(rest.len());
                if length == 0 {
                    return Err(self.malformed());
                }
                self.copy_to(self.at + length);
            }
        }
        if depth > 0 {
            visit.written(start, &mut self.out);
        }
        Ok(())
    }

    fn list(&mut self, depth: usize, visit: &mut dyn Visit) -> Result<(), PayloadError> {
        self.copy_to(self.at + 1);
        if self.peek()? == b']' {
            self.copy_to(self.at + 1);
            return Ok(());
        }
        loop {
            self.value(depth + 1, visit)?;
            match self.peek()? {
                b',' => self.copy_to(self.at + 1),
                b']' => {
                    self.copy_to(self.at + 1);
                    return Ok(());
                }
                _ => return Err(self.malformed()),
            }
        }
    }

    fn map(&mut self, depth: usize, visit: &mut dyn Visit) -> Result<(), PayloadError> {
        if visit.resolves()
            && let Some((digest, end)) = self.reference()
        {
            self.at = end;
            return self.follow(digest, depth, visit);
        }
        self.copy_to(self.at + 1);
        if self.peek()? == b'}' {
            self.copy_to(self.at + 1);
            return Ok(());
        }
        loop {
            if self.peek()? != b'"' {
                return Err(self.malformed());
            }
            let end = self.string_end()?;
            let key = &self.text[self.at + 1..end - 1];
            if is_marked(key) {
                self.out.push(b'"');
                visit.marked_key(key, &mut self.out);
                self.out.push(b'"');
                self.at = end;
            } else {
                self.copy_to(end);
            }
            if self.peek()? != b':' {
                return Err(self.malformed());
            }
            self.copy_to(self.at + 1);
            self.value(depth + 1, visit)?;
            match self.peek()? {
                b',' => self.copy_to(self.at + 1),
                b'}' => {
                    self.copy_to(self.at + 1);
                    return Ok(());
                }
                _ => return Err(self.malformed()),
            }
        }
    }

    /// Writes the value of a reference, with what moved out of it in turn.
    fn follow(&mut self, digest: Digest, depth: usize, visit: &mut dyn Visit) -> Result<(), PayloadError> {
        let blob = visit.resolve(&digest).ok_or(PayloadError::Missing(digest))?;
        let mut inner = Walk { text: &blob, at: 0, out: std::mem::take(&mut self.out) };
        let walked = inner.value(depth + 1, visit);
        let done = inner.at == blob.len();
        self.out = inner.out;
        walked?;
        if done { Ok(()) } else { Err(self.malformed()) }
    }

    /// The hash of a reference that starts here, and where it ends.
    fn reference(&self) -> Option<(Digest, usize)> {
        let rest = self.text[self.at..].strip_prefix(b"{\"$blob\":\"")?;
        let hex = std::str::from_utf8(rest.get(..64)?).ok()?;
        rest[64..].starts_with(b"\"}").then_some(())?;
        Some((Digest::parse(hex)?, self.at + 10 + 64 + 2))
    }

    fn peek(&self) -> Result<u8, PayloadError> {
        self.text.get(self.at).copied().ok_or_else(|| self.malformed())
    }

    /// The place after the text that starts here.
    fn string_end(&self) -> Result<usize, PayloadError> {
        let mut at = self.at + 1;
        loop {
            match self.text.get(at) {
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
                None => return Err(self.malformed()),
            }
        }
    }

    fn copy_to(&mut self, end: usize) {
        let end = end.min(self.text.len());
        self.out.extend_from_slice(&self.text[self.at..end]);
        self.at = end;
    }

    fn malformed(&self) -> PayloadError {
        PayloadError::Malformed(self.at)
    }
}

fn is_marked(key: &[u8]) -> bool {
    key.ends_with(MARK) && key[..key.len() - MARK.len()].iter().all(|b| *b == b'$')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn round(text: &str) -> External {
        let external = externalize(text.as_bytes().to_vec());
        let store: BTreeMap<Digest, Vec<u8>> = external.blobs.iter().cloned().collect();
        let digests: Vec<_> = store.keys().copied().collect();
        let back = internalize(&external.bytes, &digests, &|d| store.get(d).cloned()).expect("put together");
        assert_eq!(std::str::from_utf8(&back).expect("utf-8"), text);
        external
    }

    fn big(c: char) -> String {
        c.to_string().repeat(INLINE_BYTES_MAX)
    }

    #[test]
    fn small_records_stay_as_they_are() {
        let external = round(r#"{"v":1,"entries":[{"$blob":"x"}]}"#);
        assert!(external.blobs.is_empty());
    }

    #[test]
    fn large_texts_move_and_numbers_keep_their_digits() {
        let external = round(&format!(r#"{{"a":0.1000000000000000055511151231257827,"b":"{}","c":[1e5]}}"#, big('x')));
        assert_eq!(external.blobs.len(), 1);
        assert!(external.bytes.len() < 200);
    }

    #[test]
    fn the_same_value_moves_once() {
        let text = format!(r#"{{"a":"{0}","b":{{"c":"{0}"}},"d":"{1}"}}"#, big('x'), big('y'));
        assert_eq!(round(&text).blobs.len(), 2);
    }

    #[test]
    fn a_users_own_mark_survives() {
        let own =
            format!(r#"{{"x":{{"$blob":"{}"}},"y":{{"$$blob":{{"$blob":1}},"z":"{}"}}}}"#, Digest::ZERO, big('x'));
        round(&own);
    }

    #[test]
    fn many_small_values_move_together_and_nest() {
        let items: Vec<String> = (0..2_000).map(|i| format!("{{\"n\":{i},\"t\":\"a\\\"b\\\\\"}}")).collect();
        let many = format!("[{}]", items.join(","));
        let external = round(&format!(r#"{{"a":[{many},"{}"],"e":[],"m":{{}}}}"#, big('q')));
        assert_eq!(external.blobs.len(), 2);
        let texts: Vec<String> = (0..1_000).map(|i| format!("\"{i}{}\"", big('z'))).collect();
        round(&format!(r#"{{"a":[{}]}}"#, texts.join(",")));
    }

    #[test]
    fn damage_is_reported() {
        let digest = Digest::of(b"1");
        let text = format!(r#"{{"a":{{"$blob":"{digest}"}}}}"#);
        assert_eq!(internalize(text.as_bytes(), &[digest], &|_| None), Err(PayloadError::Missing(digest)));
        for cut in 1..text.len() {
            let cut = &text.as_bytes()[..cut];
            assert!(internalize(cut, &[digest], &|_| Some(b"1".to_vec())).is_err(), "{cut:?}");
        }
    }
}

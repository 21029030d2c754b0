//! Text as PostgreSQL takes it: its text columns refuse U+0000, and names may hold any character.
//!
//! U+0000 and U+0001 become two characters each, so that the order of texts stays what it was.

use std::borrow::Cow;

use windlass_core::ids::Name;
use windlass_ports::store::StoreError;

const ESCAPE: char = '\u{1}';
/// Bytes of a text that is in an index, as it is stored: an index takes a third of a page at most.
const INDEXED_BYTES_MAX: usize = 1_200;

/// The stored form of a text.
pub(super) fn shield(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut shielded = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => shielded.extend([ESCAPE, '\u{1}']),
            ESCAPE => shielded.extend([ESCAPE, '\u{2}']),
            other => shielded.push(other),
        }
    }
    Cow::Owned(shielded)
}

/// The stored form of a text that is in an index.
///
/// # Errors
/// [`StoreError::Invalid`] for one that is too long for it.
pub(super) fn indexed(what: &str, text: &str) -> Result<String, StoreError> {
    let shielded = shield(text);
    if shielded.len() > INDEXED_BYTES_MAX {
        let length = text.len();
        return Err(StoreError::Invalid(format!("{what} of {length} bytes is longer than {INDEXED_BYTES_MAX}")));
    }
    Ok(shielded.into_owned())
}

/// The text of a stored form.
pub(super) fn unshield(stored: &str) -> Name {
    if !stored.contains(ESCAPE) {
        return stored.into();
    }
    let mut text = String::with_capacity(stored.len());
    let mut characters = stored.chars();
    while let Some(character) = characters.next() {
        match character {
            ESCAPE => text.push(if characters.next() == Some('\u{2}') { ESCAPE } else { '\0' }),
            other => text.push(other),
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_keeps_its_order() {
        let texts =
            ["", "\0", "\0\0", "\0a", "\u{1}", "\u{1}\0", "\u{1}\u{2}", "\u{2}", "a", "a\0", "a\0b", "a\u{1}", "ab"];
        for text in texts {
            assert_eq!(&*unshield(&shield(text)), text);
            assert!(!shield(text).contains('\0'));
        }
        let mut sorted = texts.to_vec();
        sorted.sort_by_key(|text| shield(text).into_owned());
        let mut expected = texts.to_vec();
        expected.sort_unstable();
        assert_eq!(sorted, expected);
        assert!(indexed("a channel", &"x".repeat(5_000)).is_err());
    }
}

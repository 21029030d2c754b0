//! What one hidden value is found by: its text in the forms in which it is repeated, or the spellings of a number. How it is
//! searched for is [`super::finder`]'s.

use super::Leaf;
use crate::redact::forms;
use crate::value::Value;

/// Bytes from which a text is found anywhere, and in other encodings too.
pub(super) const ANYWHERE_BYTES_MIN: usize = 8;
/// Bytes from which a text is found as a whole word. A shorter one is found under its own key only: it would match by
/// accident.
const WORD_BYTES_MIN: usize = 4;
/// The same of a number: short ones count things.
const NUMBER_BYTES_MIN: usize = 6;

/// What it means that a text has a needle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The value stands there, and the needle is not shown.
    Anywhere,
    /// The value may stand there; the needle is not shown where it is a whole word.
    Word,
    /// The value may stand there.
    Held,
    /// The value may stand there if its key does too.
    Short,
    /// Its key may stand there.
    Key,
}

/// What a value is found by.
#[derive(Debug, Default)]
pub(super) struct Needles {
    /// In texts.
    pub texts: Vec<(String, Role)>,
    /// As the whole of what stands under its key.
    pub keyed: Vec<String>,
    /// As a number under any key: how that may be spelled.
    pub numbers: Vec<String>,
}

impl Needles {
    /// Those of one value.
    pub(super) fn of(leaf: &Leaf) -> Self {
        let mut needles = Self::default();
        match &leaf.value {
            Value::Str(whole) => {
                // What a program prints ends with a line break that nobody repeats.
                let text = whole.trim();
                needles.text(text, text.len() >= WORD_BYTES_MIN);
                needles.keyed = vec![text.to_owned(), whole.to_string()];
            }
            Value::Int(_) | Value::Float(_) => needles.number(spellings(&leaf.value)),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                let text = leaf.value.to_json();
                needles.text(&text, false);
                needles.keyed = vec![text];
            }
        }
        if leaf.key.is_empty() {
            // No key at all stands in every text.
            let short = needles.texts.iter_mut().filter(|(_, role)| *role == Role::Short);
            short.for_each(|(_, role)| *role = Role::Held);
        } else if needles.texts.iter().any(|(_, role)| *role == Role::Short) {
            needles.texts.extend(escapes(&leaf.key).into_iter().map(|key| (key, Role::Key)));
        }
        needles.texts.retain(|(text, _)| !text.is_empty());
        needles.texts.sort_unstable();
        needles.texts.dedup();
        needles
    }

    fn number(&mut self, spellings: Vec<String>) {
        let is_long = spellings.iter().any(|text| text.len() >= NUMBER_BYTES_MIN);
        for (at, text) in spellings.iter().enumerate() {
            let is_found_by = |(other, part): (usize, &String)| {
                other != at && part.len() >= ANYWHERE_BYTES_MIN && part != text && text.contains(&**part)
            };
            if !spellings.iter().enumerate().any(is_found_by) {
                self.text(text, is_long && text.len() >= WORD_BYTES_MIN);
            }
        }
        if is_long {
            self.numbers.extend(spellings.iter().cloned());
        }
        self.keyed = spellings;
    }

    fn text(&mut self, text: &str, is_long: bool) {
        if is_long && text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            self.numbers.push(text.to_owned());
        }
        if !is_long {
            self.texts.extend(escapes(text).into_iter().map(|form| (form, Role::Short)));
        } else if text.len() < ANYWHERE_BYTES_MIN {
            self.texts.push((text.to_owned(), Role::Word));
            self.texts.extend(escapes(text).into_iter().map(|form| (form, Role::Held)));
        } else {
            // A message may be shown by its first line.
            let lines = text.lines().map(|line| line.trim().to_owned());
            let found = forms(text).into_iter().chain(lines).filter(|form| form.len() >= ANYWHERE_BYTES_MIN);
            self.texts.extend(found.map(|form| (form, Role::Anywhere)));
        }
    }
}

/// A text as it stands within the text of JSON, and of JSON within that.
fn escapes(text: &str) -> Vec<String> {
    let mut found = vec![text.to_owned()];
    for _ in 0..2 {
        let quoted = Value::str(&*found[found.len() - 1]).to_json();
        found.push(quoted[1..quoted.len() - 1].to_owned());
    }
    found.dedup();
    found
}

/// How a number is written: as in JSON, by templates in texts and within lists, without an exponent, and with a sign and two
/// digits in it. Each once; none for what is no number.
pub(super) fn spellings(number: &Value) -> Vec<String> {
    let mut found = vec![number.to_json()];
    let float = match number {
        Value::Float(float) => Some(*float),
        // Beyond that, another number would be written.
        Value::Int(int) => Some(*int as f64).filter(|float| *float as i128 == i128::from(*int)),
        Value::Null | Value::Bool(_) | Value::Str(_) | Value::List(_) | Value::Map(_) => return Vec::new(),
    };
    if let Some(float) = float {
        let plain = format!("{float}");
        if !plain.contains('.') {
            found.push(format!("{plain}.0"));
        }
        let short = format!("{float:?}");
        if let Some((digits, exponent)) = short.split_once('e') {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |rest| ("-", rest));
            found.push(format!("{digits}e{sign}{exponent:0>2}"));
        }
        found.extend([plain, short]);
    }
    found.sort_unstable();
    found.dedup();
    found
}

//! Splits Rust text into code, strings and comments, and tells tests from the rest. A scanner, not a parser: enough to
//! look for words without finding them in the wrong place.

/// One Rust file in three layers of equal shape. In each, everything that belongs to another layer is blank.
pub(super) struct Source {
    /// Code without comments and without the inside of strings.
    pub(super) code: Vec<String>,
    /// The inside of strings.
    pub(super) strings: Vec<String>,
    /// The first line (from 0) of the tests at the bottom; the number of lines when there are none.
    pub(super) tests_from: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Layer {
    Code,
    Str,
    Comment,
}

impl Source {
    /// Scans a file. `path` tells whether it is a test as a whole.
    pub(super) fn scan(path: &str, text: &str) -> Self {
        let layers = layers(text);
        let pick = |wanted: Layer| -> Vec<String> {
            let blanked: String = text
                .chars()
                .zip(&layers)
                .map(|(c, layer)| if c == '\n' || *layer == wanted { c } else { ' ' })
                .collect();
            blanked.lines().map(str::to_owned).collect()
        };
        let code = pick(Layer::Code);
        let tests_from = if is_test_path(path) { 0 } else { tests_from(&code) };
        Self { strings: pick(Layer::Str), code, tests_from }
    }

    /// Lines of code that are not tests, numbered from 1.
    pub(super) fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.code[..self.tests_from], 0)
    }

    /// Lines of code that are tests, numbered from 1.
    pub(super) fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.code[self.tests_from..], self.tests_from)
    }

    /// Insides of strings that are not tests, by line from 1.
    pub(super) fn product_strings(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.strings[..self.tests_from], 0)
    }
}

fn numbered(lines: &[String], before: usize) -> impl Iterator<Item = (usize, &str)> {
    lines.iter().enumerate().map(move |(index, line)| (before + index + 1, line.as_str()))
}

/// Whether a whole file is a test.
fn is_test_path(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/")
}

/// The first line of the `mod tests` at the bottom.
fn tests_from(code: &[String]) -> usize {
    let opens = |index: usize| {
        let next = code[index + 1..].iter().map(|line| line.trim()).find(|line| !line.is_empty());
        code[index].trim() == "#[cfg(test)]" && next.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    (0..code.len()).find(|index| opens(*index)).unwrap_or(code.len())
}

/// The layer of every character.
fn layers(text: &str) -> Vec<Layer> {
    let chars: Vec<char> = text.chars().collect();
    let mut layers = Vec::with_capacity(chars.len());
    while layers.len() < chars.len() {
        let at = layers.len();
        let rest = &chars[at..];
        let (layer, length) = match rest {
            ['/', '/', ..] => (Layer::Comment, until_newline(rest)),
            ['/', '*', ..] => (Layer::Comment, block_comment(rest)),
            ['"', ..] => (Layer::Str, string(rest)),
            ['r', '"' | '#', ..] if !follows_word(&chars, at) => match raw_string(rest) {
                Some(length) => (Layer::Str, length),
                None => (Layer::Code, 1),
            },
            ['\'', ..] => match char_literal(rest) {
                Some(length) => (Layer::Str, length),
                None => (Layer::Code, 1),
            },
            _ => (Layer::Code, 1),
        };
        layers.extend(std::iter::repeat_n(layer, length));
    }
    layers
}

fn follows_word(chars: &[char], at: usize) -> bool {
    // `br"` is a raw string too: only a word longer than that prefix speaks against one.
    let before = at.checked_sub(1).map(|index| chars[index]);
    before.is_some_and(|c| (c.is_alphanumeric() || c == '_') && c != 'b')
}

fn until_newline(rest: &[char]) -> usize {
    rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string such as `r#"..."#`; none for a raw name such as `r#type`.
fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let body = 1 + hashes;
    if rest.get(body) != Some(&'"') {
        return None;
    }
    let closes =
        |at: usize| rest[at] == '"' && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    let end = (body + 1..rest.len()).find(|at| closes(*at));
    Some(end.map_or(rest.len(), |at| at + 1 + hashes))
}

/// The length of a character literal; none for a lifetime.
fn char_literal(rest: &[char]) -> Option<usize> {
    match rest {
        ['\'', '\\', ..] => rest.iter().skip(3).position(|c| *c == '\'').map(|at| at + 4),
        ['\'', _, '\'', ..] => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let squeezed: Vec<String> = Source::scan("crates/x/src/a.rs", text).code;
        squeezed.join("\n").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn strings_and_comments_are_not_code() {
        assert_eq!(code("let a = \"x // y\"; // z"), "let a = ;");
        assert_eq!(code("a /* b /* c */ d */ e"), "a e");
        assert_eq!(code(r##"let a = r#"q " q"#; b"##), "let a = ; b");
        assert_eq!(code(r#"let a = "\" q"; b"#), "let a = ; b");
        assert_eq!(code("br\"q\" r#type"), "b r#type");
    }

    #[test]
    fn lifetimes_are_code_and_characters_are_not() {
        assert_eq!(code("fn f<'a>(x: &'a str) { '\"'; '\\''; 'c' }"), "fn f<'a>(x: &'a str) { ; ; }");
        assert_eq!(code("'\\u{1F600}' x"), "x");
    }

    #[test]
    fn tests_begin_at_their_module() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        let source = Source::scan("crates/x/src/a.rs", text);
        assert_eq!(source.tests_from, 2);
        assert!(source.product().all(|(_, line)| !line.contains('b')));
        assert_eq!(source.tests().find(|(_, line)| line.contains("fn b")).map(|(number, _)| number), Some(5));
        assert_eq!(Source::scan("crates/x/tests/it/main.rs", text).tests_from, 0);
        assert_eq!(Source::scan("crates/x/src/a.rs", "#[cfg(test)]\nmod tests;\nfn a() {}\n").tests_from, 3);
    }
}

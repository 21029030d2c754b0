//! Text of a simple condition to its tree: a tokenizer and a recursive descent with bounded nesting.

use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::value::Value;

use super::{Expr, Math, Part, Relation};
use crate::eval::meter::Fault;

/// Bytes of one condition.
const SOURCE_BYTES_MAX: usize = 16 * 1024;
/// Brackets within brackets.
const NESTING_MAX: usize = 50;

/// What a condition may name, beside the words for true, false and null.
const NAMES: [&str; 3] = ["context", "input", "output"];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(Name),
    Literal(Value),
    /// Punctuation and operators, as written.
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 16] = ["==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "(", ")", "[", "]", ".", ","];

type Out<T> = Result<T, Fault>;

/// Reads a condition that is not blank.
pub(super) fn parse(source: &str) -> Out<Expr> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(limit(format!("a condition longer than {SOURCE_BYTES_MAX} bytes")));
    }
    let mut parser = Parser { tokens: tokens(source)?, at: 0, nesting: 0 };
    let expr = parser.or()?;
    match parser.peek() {
        (Token::End, _) => Ok(expr),
        (token, at) => Err(unexpected(token, *at)),
    }
}

fn limit(message: String) -> Fault {
    Fault::new(Code::ConditionLimit, message)
}

fn syntax(message: impl Into<String>, at: usize) -> Fault {
    Fault::new(Code::ConditionSyntax, message).at(u32::try_from(at).unwrap_or(u32::MAX))
}

/// The failure for something that has no place where it stands, with the way to say it.
fn unexpected(token: &Token, at: usize) -> Fault {
    let shown = match token {
        Token::End => return syntax("the condition ends too early", at),
        Token::Name(name) => name.to_string(),
        Token::Literal(value) => value.to_json(),
        Token::Sign(sign) => (*sign).to_owned(),
    };
    let fault = syntax(format!("unexpected `{shown}`"), at);
    match shown.as_str() {
        "(" => fault.hint("functions need `expression_engine: cel`"),
        "in" | "is" | "if" | "else" | "[" | "," | "*" | "/" => {
            fault.hint("a simple condition has comparisons, `and`, `or`, `not`, + - * / and paths; for more use `expression_engine: cel`")
        }
        _ => fault,
    }
}

fn tokens(source: &str) -> Out<Vec<(Token, usize)>> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        let start = at;
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if c == '#' {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let token = if c.is_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let quote = rest[end..].chars().next().filter(|q| matches!(q, '\'' | '"'));
            match (&rest[..end], quote) {
                ("r" | "R", Some(_)) => {
                    let (text, used) = string(&rest[end..], true, at + end)?;
                    at += end + used;
                    Token::Literal(Value::from(text))
                }
                (prefix, Some(_)) => return Err(syntax(format!("texts with prefix `{prefix}` are not available"), at)),
                (word, None) => {
                    at += end;
                    Token::Name(word.into())
                }
            }
        } else if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|d: char| d.is_ascii_digit())) {
            let (value, used) = number(rest, at)?;
            at += used;
            Token::Literal(value)
        } else if matches!(c, '\'' | '"') {
            let (text, used) = string(rest, false, at)?;
            at += used;
            Token::Literal(Value::from(text))
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            at += sign.len();
            Token::Sign(sign)
        } else {
            return Err(foreign(c, rest, at));
        };
        out.push((token, start));
    }
    out.push((Token::End, source.len()));
    Ok(out)
}

/// The failure for a character that begins nothing in this language.
fn foreign(c: char, rest: &str, at: usize) -> Fault {
    let fault = syntax(format!("unexpected `{c}`"), at);
    match c {
        '&' => fault.hint("write `and`"),
        '|' => fault.hint("write `or`"),
        '!' => fault.hint("write `not`"),
        '=' => fault.hint("compare with `==`"),
        '{' if rest.starts_with("{{") => fault.hint("a condition is an expression already: leave the braces out"),
        _ => fault,
    }
}

/// A number and the bytes it takes: decimal with exponent and underscores, or with a `0x`, `0o`, `0b` in front.
fn number(text: &str, at: usize) -> Out<(Value, usize)> {
    let bytes = text.as_bytes();
    let mut end = 0;
    while end < bytes.len() {
        let exponent_sign = matches!(bytes[end], b'+' | b'-')
            && matches!(bytes[end - 1], b'e' | b'E')
            && !matches!(bytes.get(1), Some(b'x' | b'X'));
        if !(bytes[end].is_ascii_alphanumeric() || matches!(bytes[end], b'_' | b'.') || exponent_sign) {
            break;
        }
        end += 1;
    }
    let written = &text[..end];
    let bad = || syntax(format!("`{written}` is no number"), at);
    if written.starts_with('_') || written.ends_with('_') || written.contains("__") {
        return Err(bad());
    }
    let plain = written.replace('_', "").to_ascii_lowercase();
    let based = [("0x", 16), ("0o", 8), ("0b", 2)]
        .iter()
        .find_map(|(prefix, base)| plain.strip_prefix(prefix).map(|digits| i64::from_str_radix(digits, *base)));
    if let Some(parsed) = based {
        return Ok((Value::Int(parsed.map_err(|_| bad())?), end));
    }
    if plain.bytes().all(|b| b.is_ascii_digit()) {
        if plain.len() > 1 && plain.starts_with('0') && plain.bytes().any(|b| b != b'0') {
            return Err(bad().hint("write the number without zeros in front"));
        }
        if let Ok(whole) = plain.parse() {
            return Ok((Value::Int(whole), end));
        }
    }
    let float = plain.parse().ok().and_then(Value::float).ok_or_else(bad)?;
    Ok((float, end))
}

/// A quoted text, with Python's escapes unless raw, and the bytes it takes.
fn string(text: &str, raw: bool, at: usize) -> Out<(String, usize)> {
    let mut chars = text.char_indices();
    let Some((_, quote)) = chars.next() else {
        return Err(syntax("a text lacks its end", at));
    };
    let mut out = String::new();
    while let Some((i, c)) = chars.next() {
        if c == quote {
            return Ok((out, i + 1));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some((_, escaped)) = chars.next() else { break };
        if raw {
            out.extend(['\\', escaped]);
            continue;
        }
        let digits = match escaped {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        match escaped {
            'x' | 'u' | 'U' => {
                let mut code = 0_u32;
                for _ in 0..digits {
                    let digit = chars.next().and_then(|(_, d)| d.to_digit(16));
                    let digit = digit.ok_or_else(|| syntax(format!("`\\{escaped}` lacks its digits"), at + i))?;
                    code = code.wrapping_mul(16).wrapping_add(digit);
                }
                let c = char::from_u32(code).ok_or_else(|| syntax("an escape that is no character", at + i))?;
                out.push(c);
            }
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'v' => out.push('\u{b}'),
            '0' => out.push('\0'),
            '\n' => {}
            '\\' | '\'' | '"' => out.push(escaped),
            other => out.extend(['\\', other]),
        }
    }
    Err(syntax("a text lacks its end", at))
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    nesting: usize,
}

impl Parser {
    fn peek(&self) -> &(Token, usize) {
        // The last token is the end, and nothing goes past it.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> (Token, usize) {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(&self.peek().0, Token::Name(name) if **name == *word);
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(&self.peek().0, Token::Sign(s) if *s == sign);
        self.at += usize::from(found);
        found
    }

    fn or(&mut self) -> Out<Expr> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(limit(format!("brackets nested deeper than {NESTING_MAX} levels")));
        }
        let mut operands = vec![self.and()?];
        while self.word("or") {
            operands.push(self.and()?);
        }
        self.nesting -= 1;
        Ok(one_or(operands, Expr::Or))
    }

    fn and(&mut self) -> Out<Expr> {
        let mut operands = vec![self.not()?];
        while self.word("and") {
            operands.push(self.not()?);
        }
        Ok(one_or(operands, Expr::And))
    }

    fn not(&mut self) -> Out<Expr> {
        let mut times = 0;
        while self.word("not") {
            times += 1;
        }
        let mut expr = self.comparison()?;
        // Two in a row make a boolean of the value, more change nothing further.
        for _ in 0..(if times > 2 { 2 - times % 2 } else { times }) {
            expr = Expr::Not(Box::new(expr));
        }
        Ok(expr)
    }

    fn comparison(&mut self) -> Out<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let at = self.peek().1;
            let relation = match self.peek().0 {
                Token::Sign("==") => Relation::Eq,
                Token::Sign("!=") => Relation::Ne,
                Token::Sign("<") => Relation::Lt,
                Token::Sign("<=") => Relation::Le,
                Token::Sign(">") => Relation::Gt,
                Token::Sign(">=") => Relation::Ge,
                _ => break,
            };
            self.at += 1;
            rest.push((relation, self.sum()?, at as u32));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Out<Expr> {
        self.math(Self::product, |token| match token {
            Token::Sign("+") => Some(Math::Add),
            Token::Sign("-") => Some(Math::Sub),
            _ => None,
        })
    }

    fn product(&mut self) -> Out<Expr> {
        self.math(Self::signed, |token| match token {
            Token::Sign("*") => Some(Math::Mul),
            Token::Sign("/") => Some(Math::Div),
            _ => None,
        })
    }

    fn math(&mut self, operand: fn(&mut Self) -> Out<Expr>, op: fn(&Token) -> Option<Math>) -> Out<Expr> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some(math) = op(&self.peek().0) {
            let at = self.next().1;
            rest.push((math, operand(self)?, at as u32));
        }
        Ok(if rest.is_empty() { first } else { Expr::Math(Box::new(first), rest) })
    }

    fn signed(&mut self) -> Out<Expr> {
        let at = self.peek().1 as u32;
        let mut times = 0_usize;
        loop {
            if self.sign("-") {
                times += 1;
            } else if self.sign("+") {
                times += 2;
            } else {
                break;
            }
        }
        let mut expr = self.path()?;
        for _ in 0..(if times > 2 { 2 - times % 2 } else { times }) {
            expr = match expr {
                Expr::Literal(Value::Int(i)) if i != i64::MIN => Expr::Literal(Value::Int(-i)),
                Expr::Literal(Value::Float(f)) => Expr::Literal(Value::Float(-f)),
                other => Expr::Neg(Box::new(other), at),
            };
        }
        Ok(expr)
    }

    fn path(&mut self) -> Out<Expr> {
        let base = self.primary()?;
        let mut parts = Vec::new();
        loop {
            let at = self.peek().1 as u32;
            if self.sign(".") {
                match self.next() {
                    (Token::Name(name), _) => parts.push((Part::Attr(name), at)),
                    (token, at) => return Err(unexpected(&token, at)),
                }
            } else if self.sign("[") {
                let key = self.or()?;
                self.expect("]")?;
                parts.push((Part::Item(key), at));
            } else {
                break;
            }
        }
        Ok(if parts.is_empty() { base } else { Expr::Path(Box::new(base), parts) })
    }

    fn expect(&mut self, sign: &str) -> Out<()> {
        if self.sign(sign) {
            return Ok(());
        }
        let (token, at) = self.peek();
        Err(match token {
            Token::End => syntax(format!("`{sign}` is missing"), *at),
            token => unexpected(token, *at),
        })
    }

    fn primary(&mut self) -> Out<Expr> {
        let (token, at) = self.next();
        match token {
            Token::Literal(Value::Str(text)) => {
                let mut text = text.to_string();
                while let (Token::Literal(Value::Str(more)), _) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Ok(Expr::Literal(Value::from(text)))
            }
            Token::Literal(value) => Ok(Expr::Literal(value)),
            Token::Sign("(") => {
                let inner = self.or()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Name(name) => match &*name {
                "true" | "True" => Ok(Expr::Literal(Value::Bool(true))),
                "false" | "False" => Ok(Expr::Literal(Value::Bool(false))),
                "null" | "None" => Ok(Expr::Literal(Value::Null)),
                known if NAMES.contains(&known) => Ok(Expr::Name(name)),
                "and" | "or" | "not" | "in" | "is" | "if" | "else" | "lambda" => {
                    Err(unexpected(&Token::Name(name), at))
                }
                other => {
                    let fault = syntax(format!("unknown name `{other}`"), at);
                    Err(if self.peek().0 == Token::Sign("(") {
                        fault.hint("functions need `expression_engine: cel`")
                    } else {
                        fault.hint("a condition knows `context`, `input` and `output`; texts need quotes")
                    })
                }
            },
            token => Err(unexpected(&token, at)),
        }
    }
}

fn one_or(mut operands: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match operands.pop() {
        Some(only) if operands.is_empty() => only,
        Some(last) => {
            operands.push(last);
            many(operands)
        }
        None => Expr::Literal(Value::Null),
    }
}

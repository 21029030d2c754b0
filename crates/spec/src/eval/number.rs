//! Python's arithmetic on numbers, and how it prints floats. Shared by templates and simple conditions.

use windlass_core::value::Value;

/// A number as an operand. Booleans count as 0 and 1, as in Python.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    /// Reads a value that is a number or a boolean.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Self::Int(i64::from(*b))),
            Value::Int(i) => Some(Self::Int(*i)),
            Value::Float(f) => Some(Self::Float(*f)),
            Value::Null | Value::Str(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Reads text as Python's `int()` and `float()` do, without underscores and infinities.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(whole) = text.parse::<i64>() {
            return Some(Self::Int(whole));
        }
        let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
        let digits = text.bytes().any(|b| b.is_ascii_digit());
        if !plain || !digits {
            return None;
        }
        text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Self::Float)
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(i) => i as f64,
            Self::Float(f) => f,
        }
    }

    pub(super) fn value(self) -> Option<Value> {
        match self {
            Self::Int(i) => Some(Value::Int(i)),
            Self::Float(f) => Value::float(f),
        }
    }

    /// Compares by value, exactly also between large integers and floats.
    pub(super) fn compare(self, other: Self) -> std::cmp::Ordering {
        use std::cmp::Ordering;
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Self::Int(a), Self::Float(b)) => int_float(a, b),
            (Self::Float(a), Self::Int(b)) => int_float(b, a).reverse(),
        }
    }
}

fn int_float(a: i64, b: f64) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    // 2^63 is exact as a float; every i64 lies below it and at or above its negative.
    if b >= 9_223_372_036_854_775_808.0 {
        return Ordering::Less;
    }
    if b < -9_223_372_036_854_775_808.0 {
        return Ordering::Greater;
    }
    let whole = b.trunc();
    a.cmp(&(whole as i64)).then_with(|| 0.0_f64.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal))
}

/// Why arithmetic gave no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Odd {
    DivisionByZero,
    NotFinite,
    TooLarge,
}

impl Odd {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::DivisionByZero => "division by zero",
            Self::NotFinite => "the result is not a finite number",
            Self::TooLarge => "the result is beyond the whole numbers that are kept exactly, -2^63 to 2^63-1",
        }
    }
}

fn finite(f: f64) -> Result<Number, Odd> {
    if f.is_finite() { Ok(Number::Float(f)) } else { Err(Odd::NotFinite) }
}

fn by_kind(
    a: Number,
    b: Number,
    whole: impl Fn(i64, i64) -> Option<i64>,
    float: impl Fn(f64, f64) -> f64,
) -> Result<Number, Odd> {
    match (a, b) {
        (Number::Int(x), Number::Int(y)) => whole(x, y).map(Number::Int).ok_or(Odd::TooLarge),
        _ => finite(float(a.as_f64(), b.as_f64())),
    }
}

pub(super) fn add(a: Number, b: Number) -> Result<Number, Odd> {
    by_kind(a, b, i64::checked_add, |x, y| x + y)
}

pub(super) fn sub(a: Number, b: Number) -> Result<Number, Odd> {
    by_kind(a, b, i64::checked_sub, |x, y| x - y)
}

pub(super) fn mul(a: Number, b: Number) -> Result<Number, Odd> {
    by_kind(a, b, i64::checked_mul, |x, y| x * y)
}

pub(super) fn div(a: Number, b: Number) -> Result<Number, Odd> {
    if b.as_f64() == 0.0 {
        return Err(Odd::DivisionByZero);
    }
    finite(a.as_f64() / b.as_f64())
}

pub(super) fn floor_div(a: Number, b: Number) -> Result<Number, Odd> {
    if b.as_f64() == 0.0 {
        return Err(Odd::DivisionByZero);
    }
    let whole = |x: i64, y: i64| {
        let q = x.checked_div(y)?;
        if x % y != 0 && ((x < 0) != (y < 0)) { q.checked_sub(1) } else { Some(q) }
    };
    by_kind(a, b, whole, |x, y| (x / y).floor())
}

pub(super) fn rem(a: Number, b: Number) -> Result<Number, Odd> {
    if b.as_f64() == 0.0 {
        return Err(Odd::DivisionByZero);
    }
    let whole = |x: i64, y: i64| {
        let r = x.checked_rem(y).unwrap_or(0);
        Some(if r != 0 && ((r < 0) != (y < 0)) { r + y } else { r })
    };
    by_kind(a, b, whole, |x, y| {
        let r = x % y;
        if r != 0.0 && ((r < 0.0) != (y < 0.0)) { r + y } else { r }
    })
}

pub(super) fn pow(a: Number, b: Number) -> Result<Number, Odd> {
    if let (Number::Int(x), Number::Int(y)) = (a, b)
        && let Ok(e) = u32::try_from(y)
    {
        return x.checked_pow(e).map(Number::Int).ok_or(Odd::TooLarge);
    }
    if a.as_f64() == 0.0 && b.as_f64() < 0.0 {
        return Err(Odd::DivisionByZero);
    }
    finite(a.as_f64().powf(b.as_f64()))
}

pub(super) fn neg(a: Number) -> Number {
    match a {
        Number::Int(i) => i.checked_neg().map_or(Number::Float(-(i as f64)), Number::Int),
        Number::Float(f) => Number::Float(-f),
    }
}

/// A float as Python's `repr` prints it: shortest digits, `1.0`, `1e+16`, `1e-05`.
pub(super) fn float_text(f: f64) -> String {
    let scientific = format!("{f:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{f}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering;

    #[test]
    fn floats_print_like_python() {
        for (f, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-0.0, "-0.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (123456789012345680.0, "1.2345678901234568e+17"),
        ] {
            assert_eq!(float_text(f), text);
        }
    }

    #[test]
    fn division_floors() {
        let (seven, two, three) = (Number::Int(7), Number::Int(2), Number::Int(3));
        assert_eq!(floor_div(neg(seven), two), Ok(Number::Int(-4)));
        assert_eq!(rem(neg(seven), three), Ok(Number::Int(2)));
        assert_eq!(floor_div(Number::Float(7.0), two), Ok(Number::Float(3.0)));
        assert_eq!(rem(seven, Number::Int(0)), Err(Odd::DivisionByZero));
        assert_eq!(rem(Number::Int(i64::MIN), Number::Int(-1)), Ok(Number::Int(0)));
        assert_eq!(floor_div(Number::Int(i64::MIN), Number::Int(-1)), Err(Odd::TooLarge));
    }

    #[test]
    fn digits_are_never_lost_in_silence() {
        assert_eq!(add(Number::Int(i64::MAX), Number::Int(1)), Err(Odd::TooLarge));
        assert_eq!(add(Number::Int(i64::MAX), Number::Float(1.0)), Ok(Number::Float(9223372036854775808.0)));
        assert_eq!(pow(Number::Int(10), Number::Int(400)), Err(Odd::TooLarge));
        assert_eq!(pow(Number::Int(2), Number::Int(-1)), Ok(Number::Float(0.5)));
    }

    #[test]
    fn integers_and_floats_compare_exactly() {
        assert_eq!(Number::Int(9007199254740993).compare(Number::Float(9007199254740992.0)), Ordering::Greater);
        assert_eq!(Number::Int(3).compare(Number::Float(3.5)), Ordering::Less);
        assert_eq!(Number::Int(-3).compare(Number::Float(-3.5)), Ordering::Greater);
        assert_eq!(Number::Float(1e300).compare(Number::Int(i64::MAX)), Ordering::Greater);
    }

    #[test]
    fn numbers_are_read_from_text() {
        assert_eq!(Number::parse(" 42 "), Some(Number::Int(42)));
        assert_eq!(Number::parse("+4.50"), Some(Number::Float(4.5)));
        assert_eq!(Number::parse("1e3"), Some(Number::Float(1000.0)));
        for text in ["", "nan", "inf", "1_000", "0x10", "--1", "e", "1e999", "."] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }
}

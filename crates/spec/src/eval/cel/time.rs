//! Points in time and spans of CEL, as values written in conditions. There is no clock here.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use windlass_core::value::Value;

use super::{Cel, Math, overflow, overload, sign};
use crate::eval::meter::Fault;

type Out<T = Cel> = Result<T, Fault>;

const SECOND: i128 = 1_000_000_000;
/// CEL's bound on spans: about 10,000 years either way.
const SPAN_MAX: i128 = 315_576_000_000 * SECOND;

/// A part of a time or of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    FullYear,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

impl Part {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "getFullYear" => Self::FullYear,
            "getMonth" => Self::Month,
            "getDate" => Self::Date,
            "getDayOfMonth" => Self::DayOfMonth,
            "getDayOfWeek" => Self::DayOfWeek,
            "getDayOfYear" => Self::DayOfYear,
            "getHours" => Self::Hours,
            "getMinutes" => Self::Minutes,
            "getSeconds" => Self::Seconds,
            "getMilliseconds" => Self::Milliseconds,
            _ => return None,
        })
    }
}

/// A part of a time, in UTC, or the whole of a span in a unit.
pub(super) fn part(part: Part, value: &Cel) -> Out<Value> {
    let number = match value {
        Cel::Timestamp(t) => {
            let t = t.to_zoned(TimeZone::UTC);
            match part {
                Part::FullYear => i64::from(t.year()),
                Part::Month => i64::from(t.month()) - 1,
                Part::Date => i64::from(t.day()),
                Part::DayOfMonth => i64::from(t.day()) - 1,
                Part::DayOfWeek => i64::from(t.weekday().to_sunday_zero_offset()),
                Part::DayOfYear => i64::from(t.day_of_year()) - 1,
                Part::Hours => i64::from(t.hour()),
                Part::Minutes => i64::from(t.minute()),
                Part::Seconds => i64::from(t.second()),
                Part::Milliseconds => i64::from(t.millisecond()),
            }
        }
        Cel::Duration(d) => {
            let whole = match part {
                Part::Hours => d / (3_600 * SECOND),
                Part::Minutes => d / (60 * SECOND),
                Part::Seconds => d / SECOND,
                Part::Milliseconds => d % SECOND / 1_000_000,
                _ => return Err(overload("this part of a time", &[value])),
            };
            i64::try_from(whole).map_err(|_| overflow())?
        }
        other => return Err(overload("this part of a time", &[other])),
    };
    Ok(Value::Int(number))
}

/// `timestamp(…)`: RFC 3339 text, or seconds since 1970.
pub(super) fn timestamp(value: &Cel) -> Out {
    match value {
        Cel::Timestamp(t) => Ok(Cel::Timestamp(*t)),
        Cel::Data(Value::Int(seconds)) => Timestamp::from_second(*seconds)
            .map(Cel::Timestamp)
            .map_err(|_| Fault::kind(format!("{seconds} seconds are beyond the year 9999"))),
        Cel::Data(Value::Str(text)) => text
            .parse()
            .map(Cel::Timestamp)
            .map_err(|_| Fault::kind(format!("`{text}` is no time such as `2026-01-31T12:00:00Z`"))),
        other => Err(overload("timestamp", &[other])),
    }
}

/// `duration(…)`: text such as `1h30m` or `1.5s`.
pub(super) fn duration(value: &Cel) -> Out {
    match value {
        Cel::Duration(d) => Ok(Cel::Duration(*d)),
        Cel::Data(Value::Str(text)) => span(text)
            .map(Cel::Duration)
            .ok_or_else(|| Fault::kind(format!("`{text}` is no span such as `1h30m` or `1.5s`"))),
        other => Err(overload("duration", &[other])),
    }
}

/// Reads a span: numbers with `h`, `m`, `s`, `ms`, `us` or `ns`, a sign in front.
fn span(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanos: i128 = match unit {
            "h" => 3_600 * SECOND,
            "m" => 60 * SECOND,
            "s" => SECOND,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() > 18 || fraction.len() > 18 || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(nanos)?)?;
        if !fraction.is_empty() {
            let digits: i128 = fraction.parse().ok()?;
            total = total.checked_add(digits.checked_mul(nanos)? / 10_i128.pow(u32::try_from(fraction.len()).ok()?))?;
        }
        rest = after;
    }
    (total <= SPAN_MAX).then_some(if negative { -total } else { total })
}

/// A span as CEL prints it: seconds.
pub(super) fn duration_text(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, fraction) = (nanos.abs() / SECOND, nanos.abs() % SECOND);
    if fraction == 0 {
        return format!("{sign}{seconds}s");
    }
    format!("{sign}{seconds}.{}s", format!("{fraction:09}").trim_end_matches('0'))
}

/// `+` and `-` on times and spans.
pub(super) fn math(op: Math, left: &Cel, right: &Cel) -> Out {
    let bounded = |nanos: i128| if nanos.abs() <= SPAN_MAX { Ok(Cel::Duration(nanos)) } else { Err(overflow()) };
    let moved = |t: &Timestamp, by: i128| {
        let nanos = t.as_nanosecond().checked_add(by).ok_or_else(overflow)?;
        Timestamp::from_nanosecond(nanos).map(Cel::Timestamp).map_err(|_| overflow())
    };
    match (op, left, right) {
        (Math::Add, Cel::Duration(a), Cel::Duration(b)) => bounded(a + b),
        (Math::Sub, Cel::Duration(a), Cel::Duration(b)) => bounded(a - b),
        (Math::Add, Cel::Timestamp(t), Cel::Duration(d)) | (Math::Add, Cel::Duration(d), Cel::Timestamp(t)) => {
            moved(t, *d)
        }
        (Math::Sub, Cel::Timestamp(t), Cel::Duration(d)) => moved(t, -d),
        (Math::Sub, Cel::Timestamp(a), Cel::Timestamp(b)) => bounded(a.as_nanosecond() - b.as_nanosecond()),
        _ => Err(overload(sign(op), &[left, right])),
    }
}

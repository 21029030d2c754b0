//! Which runs a command is about: flags and `--where` texts as one filter.

use windlass_core::ids::{Name, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::Query;

use crate::config::Span;
use crate::exit::Problem;

/// What a filter may say.
const HELP: &str = "conditions are `status=A,B`, `machine=NAME`, `tenant=NAME`, `pool=NAME`, `tag=KEY` or \
                    `tag=KEY=VALUE`, `below=RUN`, `since=TIME`, `until=TIME` and `children=true`, with blanks between \
                    them; a value with blanks stands in double quotes";

/// Conditions that all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Of one of these statuses; of any when empty.
    pub statuses: Vec<Status>,
    /// Of this machine.
    pub machine: Option<Name>,
    /// Of this tenant.
    pub tenant: Option<Name>,
    /// Of this pool.
    pub pool: Option<Name>,
    /// With all of these tags.
    pub tags: Vec<(Name, Option<Name>)>,
    /// This run or below it.
    pub below: Option<RunId>,
    /// Created at or after this.
    pub since: Option<Timestamp>,
    /// Created before this.
    pub until: Option<Timestamp>,
    /// Runs that other runs started, too.
    pub children: bool,
}

impl Filter {
    /// Reads the texts of `--where`.
    ///
    /// # Errors
    /// A text that is no condition, and texts with none at all.
    pub(crate) fn parse(texts: &[String], now: Timestamp) -> Result<Self, Problem> {
        let mut filter = Self::default();
        let mut conditions = 0;
        for text in texts {
            for condition in words(text)? {
                filter.add(&condition, now)?;
                conditions += 1;
            }
        }
        if conditions == 0 {
            return Err(Problem::invalid("`--where` has no condition").hint(HELP));
        }
        Ok(filter)
    }

    fn add(&mut self, condition: &str, now: Timestamp) -> Result<(), Problem> {
        let wrong = || Problem::invalid(format!("`--where`: `{condition}` is no condition")).hint(HELP);
        let (key, value) = condition.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or_else(wrong)?;
        let once = |slot: &mut Option<Name>| match slot.replace(value.into()) {
            None => Ok(()),
            Some(_) => Err(Problem::invalid(format!("`--where`: `{key}` is given twice")).hint(HELP)),
        };
        match key {
            "status" => {
                for word in value.split(',') {
                    self.statuses.push(status(word)?);
                }
            }
            "machine" => once(&mut self.machine)?,
            "tenant" => once(&mut self.tenant)?,
            "pool" => once(&mut self.pool)?,
            "tag" => self.tags.push(tag(value)),
            "below" => self.below = Some(RunId::stored(value)),
            "since" => self.since = Some(moment("--where since", value, now)?),
            "until" => self.until = Some(moment("--where until", value, now)?),
            "children" => self.children = value.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// The question for the store.
    #[must_use]
    pub(crate) fn query(&self, limit: usize) -> Query {
        Query {
            statuses: self.statuses.clone(),
            machine: self.machine.clone(),
            parent: None,
            root: self.below.clone(),
            roots_only: !self.children && self.below.is_none(),
            tenant: self.tenant.clone(),
            pool: self.pool.clone(),
            tags: self.tags.clone(),
            created_from: self.since,
            created_before: self.until,
            cursor: None,
            limit,
        }
    }
}

/// A status by its word.
///
/// # Errors
/// A word that is none.
pub(crate) fn status(word: &str) -> Result<Status, Problem> {
    Status::parse(word).ok_or_else(|| {
        let words: Vec<&str> = Status::ALL.iter().map(|s| s.as_str()).collect();
        Problem::invalid(format!("`{word}` is no status")).hint(format!("one of {}", words.join(", ")))
    })
}

/// `KEY=VALUE`, or `KEY` for every value.
#[must_use]
pub(crate) fn tag(text: &str) -> (Name, Option<Name>) {
    match text.split_once('=') {
        Some((key, value)) => (key.into(), Some(value.into())),
        None => (text.into(), None),
    }
}

/// A time, or how long ago it was.
///
/// # Errors
/// A text that is neither.
pub(crate) fn moment(flag: &str, text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    if let Ok(span) = text.parse::<Span>() {
        return Ok(Timestamp(now.0.saturating_sub(span.0)));
    }
    time(flag, text)
}

/// A time.
///
/// # Errors
/// A text that is none.
pub(crate) fn time(flag: &str, text: &str) -> Result<Timestamp, Problem> {
    let time = text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_millisecond()).ok());
    time.map(Timestamp).ok_or_else(|| {
        Problem::invalid(format!("`{flag}`: `{text}` is no time"))
            .hint("write a time such as `2027-01-31T08:00:00Z` or `2027-01-31T09:00:00+01:00`")
    })
}

/// Words between blanks; a part in double quotes keeps its blanks.
fn words(text: &str) -> Result<Vec<String>, Problem> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            letter if letter.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            letter => word.push(letter),
        }
    }
    if quoted {
        return Err(Problem::invalid(format!("`--where`: a quote is not closed in `{text}`")).hint(HELP));
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Filter, Problem> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Filter::parse(&texts, Timestamp(100_000))
    }

    #[test]
    fn conditions_add_up() {
        let filter = parse(&[
            "status=failed,attention machine=triage tag=team=night",
            "tag=urgent since=10s until=1970-01-01T00:01:35Z tenant=\"a b\" children=true",
        ])
        .expect("a filter");
        assert_eq!(filter.statuses, [Status::Failed, Status::Attention]);
        assert_eq!(filter.tags, [("team".into(), Some("night".into())), ("urgent".into(), None)]);
        assert_eq!((filter.since, filter.until), (Some(Timestamp(90_000)), Some(Timestamp(95_000))));
        assert_eq!(filter.tenant.as_deref(), Some("a b"));
        assert!(!filter.query(1).roots_only);
        assert!(parse(&["machine=a"]).expect("a filter").query(1).roots_only);
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for texts in
            [&[""][..], &[], &["failed"], &["status="], &["status=odd"], &["since=soon"], &["machine=\"a"], &["x=1"]]
        {
            let problem = parse(texts).expect_err("refused");
            assert_eq!(problem.exit, crate::exit::Exit::Invalid, "{texts:?}");
            assert!(problem.hint.is_some(), "{texts:?}");
        }
        assert!(parse(&["machine=a", "machine=b"]).expect_err("twice").message.contains("given twice"));
    }
}

//! The bound on one evaluation: fuel, depth and output bytes, counted the same way on every host.
//!
//! Owns the counting and the failure it leads to. What a step costs is decided where the step is done.

use windlass_core::failure::{Code, Failure};
use windlass_core::value::Value;

/// Why an evaluation stopped. Boxed, so that results stay small.
#[derive(Debug)]
pub(super) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    message: String,
    hint: Option<&'static str>,
    /// Byte offset in the source, once known.
    at: Option<u32>,
}

impl Fault {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { code, message: message.into(), hint: None, at: None }))
    }

    pub(super) fn syntax(message: impl Into<String>) -> Self {
        Self::new(Code::TemplateSyntax, message)
    }

    pub(super) fn kind(message: impl Into<String>) -> Self {
        Self::new(Code::TemplateType, message)
    }

    pub(super) fn hint(mut self, hint: &'static str) -> Self {
        self.0.hint.get_or_insert(hint);
        self
    }

    /// The same with the name of the filter it happened in.
    pub(super) fn within(mut self, filter: &str) -> Self {
        self.0.message = format!("`{filter}`: {}", self.0.message);
        self
    }

    /// The same with a place, unless a deeper place is known already.
    pub(super) fn at(mut self, offset: u32) -> Self {
        self.0.at.get_or_insert(offset);
        self
    }

    pub(super) fn code(&self) -> Code {
        self.0.code
    }

    /// The failure, with offset, line and column in the detail where the place is known.
    pub(super) fn failure(self, source: &str) -> Failure {
        let inner = *self.0;
        let mut detail: Vec<(&str, Value)> = Vec::new();
        if let Some(at) = inner.at {
            let (line, column) = line_column(source, at as usize);
            detail.push(("offset", Value::count(u64::from(at))));
            detail.push(("line", Value::count(line)));
            detail.push(("column", Value::count(column)));
        }
        if let Some(hint) = inner.hint.or_else(|| usual_hint(inner.code)) {
            detail.push(("hint", Value::str(hint)));
        }
        let failure = Failure::new(inner.code, inner.message);
        if detail.is_empty() {
            return failure;
        }
        failure.detail(Value::map(detail.into_iter().map(|(k, v)| (k.into(), v)).collect()))
    }
}

/// What to do about a failure that says nothing better.
fn usual_hint(code: Code) -> Option<&'static str> {
    match code {
        Code::TemplateUndefined => Some(
            "look at the context with `windlass runs show RUN`; `x.y | default('')` is for what may be missing in `x`",
        ),
        Code::TemplateType => {
            Some("look at the context with `windlass runs show RUN`: a value is not what is expected here")
        }
        Code::TemplateLimit => {
            Some("make the text or the list smaller before it comes here, or split the work into states")
        }
        _ => None,
    }
}

/// Line and column of a byte offset, both from 1; columns count characters.
pub(super) fn line_column(source: &str, offset: usize) -> (u64, u64) {
    let before = &source[..source.floor_char_boundary(offset.min(source.len()))];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line as u64, column as u64)
}

/// Bounds of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Units of work. One unit is a step, an element looked at, or sixteen bytes of text made; an element stored
    /// costs two. So memory in use is bounded by about 24 bytes per unit.
    pub fuel: u64,
    /// Bytes of one rendered text.
    pub output_bytes: usize,
    /// Nesting of evaluation: brackets, blocks and macro calls together.
    pub depth: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: 4_000_000, output_bytes: 32 * 1024 * 1024, depth: 160 }
    }
}

/// What is left of the bounds.
#[derive(Debug)]
pub(super) struct Meter {
    fuel: u64,
    depth: u32,
    limits: Limits,
}

/// Bytes of text made for one unit of fuel.
const BYTES_PER_UNIT: usize = 16;

impl Meter {
    pub(super) fn new(limits: Limits) -> Self {
        Self { fuel: limits.fuel, depth: 0, limits }
    }

    /// Pays for looking at `units` things.
    pub(super) fn spend(&mut self, units: usize) -> Result<(), Fault> {
        match self.fuel.checked_sub(units as u64) {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => {
                self.fuel = 0;
                Err(self.exhausted())
            }
        }
    }

    /// Pays for text of `bytes` bytes about to be made.
    pub(super) fn text(&mut self, bytes: usize) -> Result<(), Fault> {
        if bytes > self.limits.output_bytes {
            return Err(self.too_long());
        }
        self.spend(bytes / BYTES_PER_UNIT + 1)
    }

    /// Pays for reading text of `bytes` bytes.
    pub(super) fn read(&mut self, bytes: usize) -> Result<(), Fault> {
        self.spend(bytes / BYTES_PER_UNIT + 1)
    }

    /// Pays for a list or mapping of `items` items about to be made.
    pub(super) fn items(&mut self, items: usize) -> Result<(), Fault> {
        self.spend(items.saturating_mul(2).saturating_add(1))
    }

    /// Bytes of one rendered text at most.
    pub(super) fn output_bytes(&self) -> usize {
        self.limits.output_bytes
    }

    /// Goes one level down.
    pub(super) fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > self.limits.depth {
            return Err(Fault::new(
                Code::TemplateLimit,
                format!("nesting or recursion deeper than {} levels", self.limits.depth),
            ));
        }
        self.spend(1)
    }

    /// The level reached.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Comes back to a level, after a failure that does not end the evaluation.
    pub(super) fn back_to(&mut self, depth: u32) {
        self.depth = depth;
    }

    /// Comes one level up. Not called on the way out of a failure, which ends the evaluation.
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Pays for every part of a value as a tree, and bounds its nesting, before it becomes part of another.
    ///
    /// Shared parts are paid for as often as they occur, so a value cannot grow faster than the fuel shrinks.
    pub(super) fn measure(&mut self, value: &Value) -> Result<(), Fault> {
        self.measure_at(value, 1)
    }

    fn measure_at(&mut self, value: &Value, depth: usize) -> Result<(), Fault> {
        match value {
            Value::List(items) => {
                self.nested(depth)?;
                self.spend(items.len())?;
                items.iter().try_for_each(|item| self.measure_at(item, depth + 1))
            }
            Value::Map(map) => {
                self.nested(depth)?;
                self.spend(map.len())?;
                map.values().try_for_each(|item| self.measure_at(item, depth + 1))
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => Ok(()),
        }
    }

    /// Refuses values nested deeper than a run may hold.
    pub(super) fn nested(&self, depth: usize) -> Result<(), Fault> {
        if depth <= windlass_core::limits::VALUE_DEPTH_MAX {
            return Ok(());
        }
        Err(Fault::new(
            Code::TemplateLimit,
            format!("a value nested deeper than {} levels", windlass_core::limits::VALUE_DEPTH_MAX),
        ))
    }

    pub(super) fn too_long(&self) -> Fault {
        Fault::new(Code::TemplateLimit, format!("text longer than {} bytes", self.limits.output_bytes))
            .hint("pass large data by reference, or shorten it with `truncate` or a slice")
    }

    fn exhausted(&self) -> Fault {
        Fault::new(Code::TemplateLimit, format!("more than {} units of work", self.limits.fuel))
            .hint("do heavy work in an action or a tool; templates are for small texts")
    }
}

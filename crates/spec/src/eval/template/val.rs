//! What an expression can give while a template is rendered: data, nothing, or a thing that lives for one rendering.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::value::{Map, Value};

use super::ir;
use super::meter::{Fault, Meter};
use super::print;
use super::run::Frame;

/// A value during rendering.
#[derive(Clone, Debug)]
pub(super) enum Val {
    /// Data, as runs hold it.
    Data(Value),
    /// Nothing: a name, key or index that does not exist. Carries the path, where known.
    Undefined(Option<Arc<str>>),
    /// `namespace(…)`: the one thing whose fields can be set.
    Namespace(Rc<RefCell<Map>>),
    /// A macro, with the scope it was defined in.
    Macro(Arc<ir::Macro>, Weak<Frame>, Option<Rc<Val>>),
    /// The `loop` variable.
    Loop(Rc<Loop>),
    /// A global function.
    Global(Global),
    /// `cycler(…)`: its values and the place in them.
    Cycler(Rc<(Vec<Value>, Cell<usize>)>),
    /// `joiner(…)`: its separator and whether it was used.
    Joiner(Rc<(Name, Cell<bool>)>),
}

/// The `loop` variable.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) items: Arc<Vec<Value>>,
    pub(super) index: Cell<usize>,
    pub(super) depth: usize,
    pub(super) changed: RefCell<Option<Vec<Value>>>,
}

/// Global functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
}

impl Global {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "range" => Self::Range,
            "dict" => Self::Dict,
            "namespace" => Self::Namespace,
            "cycler" => Self::Cycler,
            "joiner" => Self::Joiner,
            _ => return None,
        })
    }
}

impl Val {
    pub(super) const NULL: Self = Self::Data(Value::Null);

    pub(super) fn text(text: impl Into<Name>) -> Self {
        Self::Data(Value::Str(text.into()))
    }

    pub(super) fn bool(b: bool) -> Self {
        Self::Data(Value::Bool(b))
    }

    pub(super) fn count(n: usize) -> Self {
        Self::Data(Value::count(n as u64))
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// The data, if this is data.
    pub(super) fn data(&self) -> Option<&Value> {
        if let Self::Data(value) = self { Some(value) } else { None }
    }

    /// Python's idea of truth.
    pub(super) fn is_truthy(&self) -> bool {
        match self {
            Self::Data(value) => value.is_truthy(),
            Self::Undefined(_) => false,
            _ => true,
        }
    }

    /// The word for this in messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Data(value) => value.type_name(),
            Self::Undefined(_) => "undefined",
            Self::Namespace(_) => "namespace",
            Self::Macro(..) => "macro",
            Self::Loop(_) => "loop",
            Self::Global(_) => "function",
            Self::Cycler(_) => "cycler",
            Self::Joiner(_) => "joiner",
        }
    }

    /// The data; a failure for what does not exist and for what is no data.
    pub(super) fn need(&self) -> Result<&Value, Fault> {
        match self {
            Self::Data(value) => Ok(value),
            Self::Undefined(path) => Err(undefined(path.as_deref())),
            other => Err(no_data(other)),
        }
    }

    /// The data, what does not exist as null.
    pub(super) fn into_value(self) -> Result<Value, Fault> {
        match self {
            Self::Data(value) => Ok(value),
            Self::Undefined(_) => Ok(Value::Null),
            other => Err(no_data(&other)),
        }
    }

    /// The text as printed; what does not exist is empty.
    pub(super) fn to_text(&self, meter: &mut Meter) -> Result<Name, Fault> {
        match self {
            Self::Data(Value::Str(text)) => Ok(text.clone()),
            Self::Data(value) => print::text(value, meter).map(Name::from),
            Self::Undefined(_) => Ok("".into()),
            other => Err(no_data(other)),
        }
    }

    /// The items of a list, the keys of a mapping, the characters of a text; none of what does not exist.
    pub(super) fn items(&self, meter: &mut Meter) -> Result<Arc<Vec<Value>>, Fault> {
        match self {
            Self::Data(Value::List(items)) => {
                meter.spend(1)?;
                Ok(items.clone())
            }
            Self::Data(Value::Map(map)) => {
                meter.items(map.len())?;
                Ok(Arc::new(map.keys().cloned().map(Value::Str).collect()))
            }
            Self::Data(Value::Str(text)) => {
                // One allocation per character: 24 bytes in the list, about as much on the heap.
                meter.items(text.len().saturating_mul(2))?;
                let mut buffer = [0; 4];
                Ok(Arc::new(text.chars().map(|c| Value::str(&*c.encode_utf8(&mut buffer))).collect()))
            }
            Self::Undefined(_) => Ok(Arc::default()),
            other => Err(Fault::kind(format!("a {} cannot be iterated over", other.kind()))),
        }
    }
}

/// The failure of going below something that does not exist.
pub(super) fn undefined(path: Option<&str>) -> Fault {
    let message = match path {
        Some(path) => format!("`{path}` is undefined"),
        None => "a value is undefined".to_owned(),
    };
    Fault::new(Code::TemplateUndefined, message)
        .hint("set the value before this state, or use `default` on the part that may be missing")
}

fn no_data(val: &Val) -> Fault {
    Fault::kind(format!("a {} is no data and cannot be used as a value", val.kind()))
}

//! A compiled template: owned, shared between threads, with chains flattened so that depth comes from brackets only.

use std::sync::Arc;

use windlass_core::ids::Name;
use windlass_core::value::Value;

use super::checks::Check;
use super::filters::Filter;

/// A compiled template text.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) body: Vec<Node>,
}

impl Compiled {
    /// The expression, when the text is exactly one `{{ expression }}`.
    pub(super) fn single(&self) -> Option<&Expr> {
        match self.body.as_slice() {
            [Node::Emit { expr, .. }] => Some(expr),
            _ => None,
        }
    }
}

/// One piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Text as it is.
    Raw(Arc<str>),
    /// `{{ expr }}`.
    Emit { expr: Expr, at: u32 },
    /// `{% for %}`.
    For(Box<For>),
    /// `{% if %}` with its `elif` arms and `else`.
    If { arms: Vec<(Expr, Vec<Node>)>, otherwise: Vec<Node>, at: u32 },
    /// `{% with %}`, and blocks that only open a scope.
    With { assignments: Vec<(Target, Expr)>, body: Vec<Node>, at: u32 },
    /// `{% set a = b %}`.
    Set { target: Target, expr: Expr, at: u32 },
    /// `{% set a %}…{% endset %}`.
    SetBlock { target: Target, filters: Vec<Step>, body: Vec<Node>, at: u32 },
    /// `{% filter %}`.
    Filter { filters: Vec<Step>, body: Vec<Node>, at: u32 },
    /// `{% macro %}`.
    Macro(Arc<Macro>),
    /// `{% call %}`.
    Call { call: Expr, body: Arc<Macro>, at: u32 },
    /// `{% do %}`.
    Do { expr: Expr, at: u32 },
    /// `{% break %}`.
    Break,
    /// `{% continue %}`.
    Continue,
}

/// A loop.
#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) items: Expr,
    pub(super) filter: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
    pub(super) at: u32,
}

/// A macro, or the body of a `{% call %}`.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Name,
    pub(super) params: Vec<(Name, Option<Expr>)>,
    pub(super) body: Vec<Node>,
    pub(super) at: u32,
}

/// Where a value is stored.
#[derive(Debug)]
pub(super) enum Target {
    Name(Name),
    /// A field of a namespace.
    Field(Name, Name),
    /// Unpacking.
    Many(Vec<Target>),
}

/// An expression.
#[derive(Debug)]
pub(super) enum Expr {
    Const(Value),
    Var(Name),
    /// A base followed by `.x`, `[x]`, `(x)`, `|x`, `is x`, from left to right.
    Postfix {
        base: Box<Expr>,
        steps: Vec<(Step, u32)>,
    },
    /// Left-associative operators, from left to right.
    Binary {
        first: Box<Expr>,
        rest: Vec<(BinOp, Expr, u32)>,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Neg(Box<Expr>, u32),
    Compare {
        first: Box<Expr>,
        rest: Vec<(CompareOp, Expr)>,
        at: u32,
    },
    If {
        test: Box<Expr>,
        yes: Box<Expr>,
        no: Option<Box<Expr>>,
    },
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
}

/// What follows a value.
#[derive(Debug)]
pub(super) enum Step {
    Attr(Name),
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Args),
    Method(Name, Args),
    Filter(Filter, Args),
    Test(Check, Args),
}

/// Arguments as written.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<(Expr, bool)>,
    pub(super) named: Vec<(Option<Name>, Expr)>,
}

/// Operators that give a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BinOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
    Concat,
}

/// Operators that give true or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

//! CEL text to its tree: the `cel` crate's grammar, after a scan that bounds what its parser recurses on.

use cel::Env;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::value::Value;

use super::call::Function;
use super::{Cel, Each, Kind, Macro, Math, Node, Part, Relation};
use crate::eval::meter::Fault;

/// Bytes of one condition.
const SOURCE_BYTES_MAX: usize = 16 * 1024;
/// Brackets within brackets.
const NESTING_MAX: usize = 24;
/// Operators, brackets and dots in one condition.
const OPERATORS_MAX: usize = 400;
/// Stack for reading one condition. Only what is touched is ever backed by memory.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// `?` in one condition: the parser nests them.
const CHOICES_MAX: usize = 20;

type Out<T = Node> = Result<T, Fault>;

/// Reads a condition that is not blank.
pub(super) fn parse(source: &str) -> Out {
    scan(source)?;
    // The grammar's parser takes tens of kilobytes of stack for each bracket. What is read once is read on a stack
    // of its own, large enough for whatever passes the scan.
    let result = std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(STACK_BYTES);
        worker.spawn_scoped(scope, || read(source)).ok()?.join().ok()
    });
    result.unwrap_or_else(|| Err(Fault::new(Code::ConditionLimit, "the condition could not be read")))
}

fn read(source: &str) -> Out {
    // Without the standard library no macro is expanded: they are calls here, evaluated with a bound.
    let parsed = Env::default().parser().max_recursion_depth(64).parse_with_source_info(source);
    let (tree, places) = parsed.map_err(|errors| {
        let Some(first) = errors.errors.first() else {
            return Fault::new(Code::ConditionSyntax, "the condition is malformed");
        };
        let message = first.msg.lines().next().unwrap_or("the condition is malformed").to_owned();
        Fault::new(Code::ConditionSyntax, message).at(offset(source, first.pos))
    })?;
    let mut reader = Reader { places, vars: Vec::new(), nesting: 0 };
    reader.node(&tree)
}

/// The byte offset of a line and column as the parser counts them.
fn offset(source: &str, (line, column): (isize, isize)) -> u32 {
    let line = usize::try_from(line - 1).unwrap_or(0);
    let start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = source.get(start..).unwrap_or_default();
    let column = usize::try_from(column - 1).unwrap_or(0);
    let within = rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
    u32::try_from(start + within).unwrap_or(u32::MAX)
}

fn scan(source: &str) -> Out<()> {
    let limit = |message: String, at: usize| {
        Fault::new(Code::ConditionLimit, message).at(u32::try_from(at).unwrap_or(u32::MAX))
    };
    if source.len() > SOURCE_BYTES_MAX {
        return Err(limit(format!("a condition longer than {SOURCE_BYTES_MAX} bytes"), 0));
    }
    let bytes = source.as_bytes();
    let (mut at, mut nesting, mut operators, mut choices) = (0, 0_usize, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += source[at..].find('\n').unwrap_or(source.len() - at);
                continue;
            }
            b'(' | b'[' | b'{' => {
                nesting += 1;
                operators += 1;
            }
            b')' | b']' | b'}' => nesting = nesting.saturating_sub(1),
            b'?' => choices += 1,
            b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'!' | b'&' | b'|' | b'.' => operators += 1,
            _ => {}
        }
        if nesting > NESTING_MAX {
            return Err(limit(format!("brackets nested deeper than {NESTING_MAX} levels"), at));
        }
        if operators > OPERATORS_MAX || choices > CHOICES_MAX {
            return Err(limit("too many operators in one condition".to_owned(), at));
        }
        at += 1;
    }
    Ok(())
}

/// Where a quoted text ends: three quotes, raw texts and escapes included.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let triple = bytes[start..].starts_with(&[quote, quote, quote]);
    let raw = start > 0 && matches!(bytes[start - 1], b'r' | b'R');
    let mut at = start + if triple { 3 } else { 1 };
    while at < bytes.len() {
        if bytes[at] == b'\\' && !raw {
            at += 2;
            continue;
        }
        if bytes[at] == quote && (!triple || bytes[at..].starts_with(&[quote, quote, quote])) {
            return at + if triple { 3 } else { 1 };
        }
        at += 1;
    }
    bytes.len()
}

struct Reader {
    places: SourceInfo,
    /// Variables of the macros around.
    vars: Vec<Name>,
    nesting: usize,
}

impl Reader {
    fn node(&mut self, expr: &IdedExpr) -> Out {
        self.nesting += 1;
        let at = self.at(expr.id);
        if self.nesting > 2 * OPERATORS_MAX {
            return Err(Fault::new(Code::ConditionLimit, "the condition is nested too deeply").at(at));
        }
        let kind = self.kind(&expr.expr, at)?;
        self.nesting -= 1;
        Ok(Node { at, kind })
    }

    fn at(&self, id: u64) -> u32 {
        self.places.offset_for(id).map_or(0, |(start, _)| start)
    }

    fn boxed(&mut self, expr: &IdedExpr) -> Out<Box<Node>> {
        self.node(expr).map(Box::new)
    }

    fn kind(&mut self, expr: &Expr, at: u32) -> Out<Kind> {
        match expr {
            Expr::Literal(literal) => literal_value(literal, at).map(Kind::Literal),
            Expr::Ident(name) => self.ident(name, at),
            Expr::Select(select) if select.test => {
                Ok(Kind::Has(self.boxed(&select.operand)?, select.field.as_str().into()))
            }
            Expr::Select(_) => self.path(expr, at),
            Expr::List(list) => list.elements.iter().map(|e| self.node(e)).collect::<Out<_>>().map(Kind::List),
            Expr::Map(map) => {
                let mut pairs = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(syntax("a map has keys and values", at));
                    };
                    pairs.push((self.node(&entry.key)?, self.node(&entry.value)?));
                }
                Ok(Kind::Map(pairs))
            }
            Expr::Call(call) if call.target.is_none() && call.func_name == operators::INDEX => self.path(expr, at),
            Expr::Call(call) => self.call(call, at),
            Expr::Struct(_) => Err(syntax("messages are not available: a run's data is JSON", at)),
            Expr::Comprehension(_) | Expr::Unspecified => Err(syntax("the condition is malformed", at)),
        }
    }

    fn ident(&self, name: &str, at: u32) -> Out<Kind> {
        if self.vars.iter().any(|var| **var == *name) || matches!(name, "context" | "input" | "output") {
            return Ok(Kind::Name(name.into()));
        }
        if let Some(name) = TYPES.iter().find(|t| **t == name) {
            return Ok(Kind::Literal(Cel::Type(name)));
        }
        let fault = syntax(format!("unknown name `{name}`"), at);
        Err(if name == "now" {
            fault.hint(NO_CLOCK)
        } else {
            fault.hint("a condition knows `context`, `input` and `output`; texts need quotes")
        })
    }

    fn call(&mut self, call: &CallExpr, at: u32) -> Out<Kind> {
        let name = call.func_name.as_str();
        if let Some(target) = &call.target {
            if let Some(what) = macro_named(name, call.args.len()) {
                return self.each(what, target, &call.args, at);
            }
            let mut args = vec![self.node(target)?];
            for arg in &call.args {
                args.push(self.node(arg)?);
            }
            return Function::member(name, args.len()).map(|f| Kind::Call(f, args)).map_err(|f| f.at(at));
        }
        match (name, call.args.as_slice()) {
            (operators::LOGICAL_AND, _) => self.logic(call, name, false),
            (operators::LOGICAL_OR, _) => self.logic(call, name, true),
            (operators::LOGICAL_NOT, [inner]) => Ok(Kind::Not(self.boxed(inner)?)),
            (operators::NEGATE, [inner]) => Ok(Kind::Neg(self.boxed(inner)?)),
            (operators::CONDITIONAL, [test, yes, no]) => {
                Ok(Kind::If(Box::new([self.node(test)?, self.node(yes)?, self.node(no)?])))
            }
            (operators::HAS, [field]) => match &field.expr {
                Expr::Select(select) => Ok(Kind::Has(self.boxed(&select.operand)?, select.field.as_str().into())),
                _ => Err(syntax("`has` takes a field, such as `has(context.name)`", at)),
            },
            (_, [left, right]) if relation(name).is_some() => {
                let relation = relation(name).unwrap_or(Relation::Eq);
                Ok(Kind::Compare(relation, Box::new([self.node(left)?, self.node(right)?])))
            }
            (_, [_, _]) if math(name).is_some() => self.math(call),
            _ => {
                let function = Function::global(name, call.args.len()).map_err(|f| f.at(at))?;
                let args = call.args.iter().map(|arg| self.node(arg)).collect::<Out<_>>()?;
                Ok(Kind::Call(function, args))
            }
        }
    }

    /// Fields and items of a base, nested to the left by the parser, made flat.
    fn path(&mut self, expr: &Expr, at: u32) -> Out<Kind> {
        let mut parts = Vec::new();
        let (mut current, mut at) = (expr, at);
        let base = loop {
            let (part, next) = match current {
                Expr::Select(select) if !select.test => {
                    (Part::Field(select.field.as_str().into()), select.operand.as_ref())
                }
                Expr::Call(call) if call.target.is_none() && call.func_name == operators::INDEX => {
                    let [container, key] = call.args.as_slice() else {
                        return Err(syntax("the condition is malformed", at));
                    };
                    (Part::Item(self.node(key)?), container)
                }
                other => break Node { at, kind: self.kind(other, at)? },
            };
            parts.push((part, at));
            current = &next.expr;
            at = self.at(next.id);
        };
        parts.reverse();
        Ok(Kind::Path(Box::new(base), parts))
    }

    /// A chain of one arithmetic precedence or another, nested to the left by the parser, made flat.
    fn math(&mut self, call: &CallExpr) -> Out<Kind> {
        let mut rest = Vec::new();
        let mut current = call;
        let first = loop {
            let (Some(op), [left, right]) = (math(&current.func_name), current.args.as_slice()) else {
                return Err(syntax("the condition is malformed", 0));
            };
            rest.push((op, self.node(right)?));
            match &left.expr {
                Expr::Call(next) if next.target.is_none() && math(&next.func_name).is_some() => current = next,
                _ => break self.boxed(left)?,
            }
        };
        rest.reverse();
        Ok(Kind::Math(first, rest))
    }

    /// The operands of a chain of `&&` or `||`, in order.
    fn logic(&mut self, call: &CallExpr, name: &str, decisive: bool) -> Out<Kind> {
        let mut operands = Vec::new();
        let mut pending: Vec<&IdedExpr> = call.args.iter().rev().collect();
        while let Some(expr) = pending.pop() {
            match &expr.expr {
                Expr::Call(inner) if inner.target.is_none() && inner.func_name == name => {
                    pending.extend(inner.args.iter().rev());
                }
                _ => operands.push(self.node(expr)?),
            }
        }
        Ok(Kind::Logic(decisive, operands))
    }

    fn each(&mut self, what: Macro, target: &IdedExpr, args: &[IdedExpr], at: u32) -> Out<Kind> {
        let range = self.node(target)?;
        let Some(Expr::Ident(var)) = args.first().map(|arg| &arg.expr) else {
            return Err(syntax("the first argument is the name of a variable", at));
        };
        let var = Name::from(var.as_str());
        self.vars.push(var.clone());
        let (guard, body) = match args {
            [_, guard, body] => (Some(self.node(guard)?), self.node(body)?),
            [_, body] => (None, self.node(body)?),
            _ => return Err(syntax("a macro takes a variable and an expression", at)),
        };
        self.vars.pop();
        Ok(Kind::Each(Box::new(Each { what, range, var, guard, body })))
    }
}

/// What to do instead of asking for the time.
pub(super) const NO_CLOCK: &str = "conditions do not see the clock, so that they can be answered again: put the \
     time into the context with an action, or use `wait_for` with a `timeout`";

const TYPES: [&str; 8] = ["bool", "int", "double", "string", "list", "map", "null_type", "type"];

fn syntax(message: impl Into<String>, at: u32) -> Fault {
    Fault::new(Code::ConditionSyntax, message).at(at)
}

fn literal_value(literal: &LiteralValue, at: u32) -> Out<Cel> {
    Ok(Cel::Data(match literal {
        LiteralValue::Null => Value::Null,
        LiteralValue::Boolean(b) => Value::Bool(*b.inner()),
        LiteralValue::Int(i) => Value::Int(*i.inner()),
        LiteralValue::Double(f) => Value::float(*f.inner()).ok_or_else(|| syntax("a number must be finite", at))?,
        LiteralValue::String(text) => Value::str(text.inner()),
        LiteralValue::UInt(_) => {
            return Err(syntax("unsigned numbers are not available: write it without the `u`", at));
        }
        LiteralValue::Bytes(_) => return Err(syntax("bytes are not available: write a text", at)),
    }))
}

fn macro_named(name: &str, args: usize) -> Option<Macro> {
    Some(match (name, args) {
        (operators::ALL, 2) => Macro::All,
        (operators::EXISTS, 2) => Macro::Exists,
        (operators::EXISTS_ONE | "existsOne", 2) => Macro::ExistsOne,
        (operators::MAP, 2 | 3) => Macro::Map,
        (operators::FILTER, 2) => Macro::Filter,
        _ => return None,
    })
}

fn relation(name: &str) -> Option<Relation> {
    Some(match name {
        operators::EQUALS => Relation::Eq,
        operators::NOT_EQUALS => Relation::Ne,
        operators::LESS => Relation::Lt,
        operators::LESS_EQUALS => Relation::Le,
        operators::GREATER => Relation::Gt,
        operators::GREATER_EQUALS => Relation::Ge,
        operators::IN => Relation::In,
        _ => return None,
    })
}

fn math(name: &str) -> Option<Math> {
    Some(match name {
        operators::ADD => Math::Add,
        operators::SUBSTRACT => Math::Sub,
        operators::MULTIPLY => Math::Mul,
        operators::DIVIDE => Math::Div,
        operators::MODULO => Math::Rem,
        _ => return None,
    })
}

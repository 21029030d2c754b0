//! Renders a compiled template: statements, scopes, loops. Expressions and calls are in the modules below.

mod calls;
mod expressions;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use windlass_core::eval::Scope;
use windlass_core::ids::Name;
use windlass_core::value::Value;

use super::ir::{Compiled, Expr, For, Macro, Node, Step, Target};
use super::meter::{Fault, Limits, Meter};
use super::print::{self, Style};
use super::val::{Loop, Val};

type Out<T = Val> = Result<T, Fault>;

/// Names set by the template, in one scope.
#[derive(Debug, Default)]
pub(super) struct Frame {
    vars: RefCell<Vec<(Name, Val)>>,
    parent: Option<Rc<Frame>>,
}

impl Frame {
    fn lookup(&self, name: &str) -> Option<Val> {
        let mut frame = self;
        loop {
            if let Some((_, val)) = frame.vars.borrow().iter().rev().find(|(n, _)| **n == *name) {
                return Some(val.clone());
            }
            frame = frame.parent.as_deref()?;
        }
    }

    fn set(&self, name: &Name, val: Val) {
        let mut vars = self.vars.borrow_mut();
        match vars.iter_mut().find(|(n, _)| n == name) {
            Some(slot) => slot.1 = val,
            None => vars.push((name.clone(), val)),
        }
    }
}

/// How the statements before went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// One rendering.
pub(super) struct Run<'a> {
    scope: &'a Scope,
    meter: Meter,
    style: Style,
    frame: Rc<Frame>,
    out: String,
    /// The loops around the current statement, for `loop(…)`.
    loops: Vec<(&'a For, Rc<Loop>)>,
}

/// Renders to text.
pub(super) fn text(compiled: &Compiled, scope: &Scope, style: Style, limits: Limits) -> Out<String> {
    let mut run = Run::new(scope, style, limits);
    run.statements(&compiled.body)?;
    Ok(run.out)
}

/// Evaluates the one expression of a template, keeping its type.
pub(super) fn native(expr: &Expr, scope: &Scope, style: Style, limits: Limits) -> Out<Value> {
    let mut run = Run::new(scope, style, limits);
    let value = match run.expr(expr)? {
        Val::Undefined(_) => return Ok(Value::str("")),
        val => val.into_value()?,
    };
    if !is_path(expr) {
        run.bounded(&value, &mut 0)?;
    }
    Ok(value)
}

/// Whether an expression only picks out what is in scope already.
fn is_path(expr: &Expr) -> bool {
    match expr {
        Expr::Var(_) => true,
        Expr::Postfix { base, steps } => {
            is_path(base) && steps.iter().all(|(step, _)| matches!(step, Step::Attr(_) | Step::Item(_)))
        }
        _ => false,
    }
}

impl<'a> Run<'a> {
    fn new(scope: &'a Scope, style: Style, limits: Limits) -> Self {
        Self { scope, meter: Meter::new(limits), style, frame: Rc::default(), out: String::new(), loops: Vec::new() }
    }

    /// Refuses a result that is larger, written out, than a text may be. Shared parts count as often as they occur.
    fn bounded(&mut self, value: &Value, bytes: &mut usize) -> Out<()> {
        self.meter.spend(1)?;
        *bytes = bytes.saturating_add(match value {
            Value::Str(text) => text.len() + 2,
            _ => 2,
        });
        if *bytes > self.meter.output_bytes() {
            return Err(self.meter.too_long());
        }
        match value {
            Value::List(items) => items.iter().try_for_each(|item| self.bounded(item, bytes)),
            Value::Map(map) => map.iter().try_for_each(|(key, item)| {
                *bytes = bytes.saturating_add(key.len());
                self.bounded(item, bytes)
            }),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => Ok(()),
        }
    }

    fn statements(&mut self, nodes: &'a [Node]) -> Out<Flow> {
        self.meter.enter()?;
        for node in nodes {
            match self.statement(node)? {
                Flow::On => {}
                other => {
                    self.meter.leave();
                    return Ok(other);
                }
            }
        }
        self.meter.leave();
        Ok(Flow::On)
    }

    fn statement(&mut self, node: &'a Node) -> Out<Flow> {
        self.meter.spend(1)?;
        match node {
            Node::Raw(text) => print::put(&mut self.out, text, &mut self.meter)?,
            Node::Emit { expr, at } => {
                let val = self.expr(expr).map_err(|e| e.at(*at))?;
                self.emit(&val).map_err(|e| e.at(*at))?;
            }
            Node::If { arms, otherwise, at } => return self.branch(arms, otherwise, *at),
            Node::For(f) => {
                let items = self.expr(&f.items).map_err(|e| e.at(f.at))?;
                self.for_loop(f, &items, 0).map_err(|e| e.at(f.at))?;
            }
            Node::With { assignments, body, at } => return self.with(assignments, body).map_err(|e| e.at(*at)),
            Node::Set { target, expr, at } => {
                let val = self.expr(expr).map_err(|e| e.at(*at))?;
                self.assign(target, val).map_err(|e| e.at(*at))?;
            }
            Node::SetBlock { target, filters, body, at } => {
                let val = self.captured(body, filters).map_err(|e| e.at(*at))?;
                self.assign(target, val).map_err(|e| e.at(*at))?;
            }
            Node::Filter { filters, body, at } => {
                let val = self.captured(body, filters).map_err(|e| e.at(*at))?;
                self.emit(&val).map_err(|e| e.at(*at))?;
            }
            Node::Macro(decl) => {
                let val = Val::Macro(decl.clone(), Rc::downgrade(&self.frame), None);
                self.frame.set(&decl.name, val);
            }
            Node::Call { call, body, at } => self.call_block(call, body).map_err(|e| e.at(*at))?,
            Node::Do { expr, at } => {
                self.expr(expr).map_err(|e| e.at(*at))?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn emit(&mut self, val: &Val) -> Out<()> {
        match val {
            Val::Undefined(_) => Ok(()),
            val => print::write(val.need()?, self.style, &mut self.out, &mut self.meter),
        }
    }

    fn branch(&mut self, arms: &'a [(Expr, Vec<Node>)], otherwise: &'a [Node], at: u32) -> Out<Flow> {
        for (test, body) in arms {
            if self.expr(test).map_err(|e| e.at(at))?.is_truthy() {
                return self.statements(body);
            }
        }
        self.statements(otherwise)
    }

    fn with(&mut self, assignments: &'a [(Target, Expr)], body: &'a [Node]) -> Out<Flow> {
        // Every value is computed in the scope outside, as Jinja does.
        let mut values = Vec::with_capacity(assignments.len());
        for (_, expr) in assignments {
            values.push(self.expr(expr)?);
        }
        let outer = self.push();
        for ((target, _), val) in assignments.iter().zip(values) {
            self.assign(target, val)?;
        }
        let flow = self.statements(body)?;
        self.frame = outer;
        Ok(flow)
    }

    fn push(&mut self) -> Rc<Frame> {
        let inner = Rc::new(Frame { vars: RefCell::default(), parent: Some(self.frame.clone()) });
        std::mem::replace(&mut self.frame, inner)
    }

    /// Runs statements into a text of their own, then through filters.
    fn captured(&mut self, body: &'a [Node], filters: &'a [Step]) -> Out {
        let before = std::mem::take(&mut self.out);
        let outer = self.push();
        self.statements(body)?;
        self.frame = outer;
        let mut val = Val::text(std::mem::replace(&mut self.out, before));
        for step in filters {
            let Step::Filter(filter, args) = step else { continue };
            let args = self.args(args)?;
            val = filter.apply(&mut self.meter, val, args)?;
        }
        Ok(val)
    }

    fn assign(&mut self, target: &Target, val: Val) -> Out<()> {
        self.meter.spend(2)?;
        match target {
            Target::Name(name) => self.frame.set(name, val),
            Target::Field(name, field) => match self.frame.lookup(name) {
                Some(Val::Namespace(fields)) => {
                    let value = val.into_value()?;
                    fields.borrow_mut().insert(field.clone(), value);
                }
                _ => {
                    return Err(Fault::kind(format!("`{name}` is no namespace, so `{name}.{field}` cannot be set"))
                        .hint("write `{% set ns = namespace(x=0) %}` and set `ns.x`"));
                }
            },
            Target::Many(targets) => {
                let items = val.items(&mut self.meter)?;
                if items.len() != targets.len() {
                    return Err(Fault::kind(format!("{} values for {} names", items.len(), targets.len())));
                }
                for (target, item) in targets.iter().zip(items.iter()) {
                    self.assign(target, Val::Data(item.clone()))?;
                }
            }
        }
        Ok(())
    }

    fn for_loop(&mut self, f: &'a For, items: &Val, depth: usize) -> Out<()> {
        let mut items = items.items(&mut self.meter)?;
        if let Some(filter) = &f.filter {
            let outer = self.push();
            let mut kept = Vec::new();
            for item in items.iter() {
                self.assign(&f.target, Val::Data(item.clone()))?;
                if self.expr(filter)?.is_truthy() {
                    self.meter.items(1)?;
                    kept.push(item.clone());
                }
            }
            self.frame = outer;
            items = Arc::new(kept);
        }
        if items.is_empty() {
            self.statements(&f.otherwise)?;
            return Ok(());
        }
        let state = Rc::new(Loop { items: items.clone(), index: Cell::new(0), depth, changed: RefCell::default() });
        self.loops.push((f, state.clone()));
        let outer = self.push();
        let name = Name::from("loop");
        for (i, item) in items.iter().enumerate() {
            state.index.set(i);
            self.frame.vars.borrow_mut().clear();
            self.frame.set(&name, Val::Loop(state.clone()));
            self.assign(&f.target, Val::Data(item.clone()))?;
            if self.statements(&f.body)? == Flow::Break {
                break;
            }
        }
        self.frame = outer;
        self.loops.pop();
        Ok(())
    }

    fn call_block(&mut self, call: &'a Expr, body: &Arc<Macro>) -> Out<()> {
        let caller = Val::Macro(body.clone(), Rc::downgrade(&self.frame), None);
        let Expr::Postfix { base, steps } = call else {
            return Err(Fault::syntax("a call block needs a call"));
        };
        let [(Step::Call(args), _)] = steps.as_slice() else {
            return Err(Fault::syntax("a call block needs the name of a macro"));
        };
        let callee = self.expr(base)?;
        let args = self.args(args)?;
        let Val::Macro(decl, frame, _) = callee else {
            return Err(Fault::kind(format!("a {} cannot be called with a block", callee.kind())));
        };
        let val = self.call_macro(&decl, &frame, Some(&caller), args)?;
        self.emit(&val)
    }
}

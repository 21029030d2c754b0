//! Renders a compiled template: statements, scopes, macros, loops. Operators and filters are next door.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use windlass_core::eval::Scope;
use windlass_core::ids::Name;
use windlass_core::value::{Map, Value};

use super::super::compare;
use super::arguments::Arguments;
use super::ir::{Args, Compiled, Expr, For, Macro, Node, Step, Target};
use super::meter::{Fault, Limits, Meter};
use super::methods;
use super::ops;
use super::print::{self, Style};
use super::val::{Global, Loop, Val, undefined};

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

    // ---- statements

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

    // ---- calls

    fn call(&mut self, callee: &Val, path: &dyn Fn() -> String, args: Arguments) -> Out {
        match callee {
            Val::Macro(decl, frame, caller) => self.call_macro(decl, frame, caller.as_deref(), args),
            Val::Global(global) => self.global(*global, args),
            Val::Loop(state) => self.recurse(state, args),
            Val::Joiner(state) => {
                args.finish()?;
                Ok(Val::text(if state.1.replace(true) { state.0.clone() } else { "".into() }))
            }
            Val::Undefined(_) => {
                let path = path();
                Err(undefined(Some(&path))
                    .hint("only macros, `range`, `dict`, `namespace`, `cycler` and `joiner` are functions"))
            }
            other => Err(Fault::kind(format!("a {} cannot be called", other.kind()))),
        }
    }

    fn call_macro(&mut self, decl: &Arc<Macro>, frame: &Weak<Frame>, caller: Option<&Val>, mut args: Arguments) -> Out {
        self.meter.enter()?;
        let Some(parent) = frame.upgrade() else {
            return Err(Fault::kind(format!("macro `{}` is used outside the block that defines it", decl.name)));
        };
        let inner = Rc::new(Frame { vars: RefCell::default(), parent: Some(parent) });
        let outer = std::mem::replace(&mut self.frame, inner);
        // The declaration outlives the call: the caller holds it, and a fresh machine renders the body.
        let text = self.macro_body(decl, caller, &mut args)?;
        self.frame = outer;
        args.finish()?;
        self.meter.leave();
        Ok(Val::text(text))
    }

    /// Renders a macro's body. Its nodes belong to the shared declaration rather than to this rendering's template,
    /// so a nested rendering that borrows the declaration does it, with this one's meter, scope and frame.
    fn macro_body(&mut self, decl: &Arc<Macro>, caller: Option<&Val>, args: &mut Arguments) -> Out<String> {
        let mut nested = Run {
            scope: self.scope,
            meter: std::mem::replace(&mut self.meter, Meter::new(Limits { fuel: 0, output_bytes: 0, depth: 0 })),
            style: self.style,
            frame: self.frame.clone(),
            out: String::new(),
            loops: Vec::new(),
        };
        let result = nested.bind_and_render(decl, caller, args);
        self.meter = nested.meter;
        result.map(|()| nested.out)
    }

    fn bind_and_render(&mut self, decl: &'a Macro, caller: Option<&Val>, args: &mut Arguments) -> Out<()> {
        for (i, (name, default)) in decl.params.iter().enumerate() {
            let given = args.take(i, name);
            let val = match (given, default) {
                (Some(val), _) => val,
                (None, Some(default)) => self.expr(default)?,
                (None, None) => Val::Undefined(Some(name.clone())),
            };
            self.meter.spend(2)?;
            self.frame.set(name, val);
        }
        if let Some(caller) = caller {
            self.frame.set(&"caller".into(), caller.clone());
        }
        self.statements(&decl.body).map(|_| ()).map_err(|e| e.at(decl.at))
    }

    fn recurse(&mut self, state: &Rc<Loop>, mut args: Arguments) -> Out {
        let around = self.loops.iter().rev().find(|(f, s)| f.recursive && Rc::ptr_eq(s, state));
        let Some((f, _)) = around.cloned() else {
            return Err(Fault::kind("`loop(…)` works in a loop marked `recursive`"));
        };
        let items = args.take(0, "items").unwrap_or(Val::Undefined(None));
        args.finish()?;
        self.meter.enter()?;
        let before = std::mem::take(&mut self.out);
        self.for_loop(f, &items, state.depth + 1)?;
        self.meter.leave();
        Ok(Val::text(std::mem::replace(&mut self.out, before)))
    }

    fn global(&mut self, global: Global, mut args: Arguments) -> Out {
        match global {
            Global::Range => {
                let [a, b, c] = [args.take(0, "start"), args.take(1, "stop"), args.take(2, "step")];
                args.finish()?;
                self.range(a, b, c)
            }
            Global::Dict => {
                let mut map = Map::new();
                if let Some(base) = args.take(0, "") {
                    let Value::Map(base) = base.need()? else {
                        return Err(Fault::kind("`dict` takes a mapping and named values"));
                    };
                    self.meter.items(base.len())?;
                    map = Map::clone(base);
                }
                for (name, val) in args.take_named() {
                    ops::insert(&mut map, &Val::text(name), val, &mut self.meter)?;
                }
                args.finish()?;
                Ok(Val::Data(Value::map(map)))
            }
            Global::Namespace => {
                let mut map = Map::new();
                for (name, val) in args.take_named() {
                    ops::insert(&mut map, &Val::text(name), val, &mut self.meter)?;
                }
                args.finish()?;
                Ok(Val::Namespace(Rc::new(RefCell::new(map))))
            }
            Global::Cycler => {
                let items = args.rest(0).into_iter().map(Val::into_value).collect::<Out<Vec<_>>>()?;
                args.finish()?;
                if items.is_empty() {
                    return Err(Fault::kind("`cycler` needs at least one value"));
                }
                Ok(Val::Cycler(Rc::new((items, Cell::new(0)))))
            }
            Global::Joiner => {
                let separator = args.text_or(0, "sep", ", ", &mut self.meter)?;
                args.finish()?;
                Ok(Val::Joiner(Rc::new((separator, Cell::new(false)))))
            }
        }
    }

    fn range(&mut self, a: Option<Val>, b: Option<Val>, c: Option<Val>) -> Out {
        let whole = |val: Option<Val>, default: i64| match val {
            None => Ok(default),
            Some(Val::Data(Value::Int(i))) => Ok(i),
            Some(other) => Err(Fault::kind(format!("`range` takes whole numbers, not {}", other.kind()))),
        };
        let (start, stop) = match b {
            None => (0, whole(a, 0)?),
            Some(b) => (whole(a, 0)?, whole(Some(b), 0)?),
        };
        let step = whole(c, 1)?;
        if step == 0 {
            return Err(Fault::kind("the step of `range` cannot be zero"));
        }
        let distance =
            if step > 0 { i128::from(stop) - i128::from(start) } else { i128::from(start) - i128::from(stop) };
        let count =
            usize::try_from((distance.max(0) as u128).div_ceil(u128::from(step.unsigned_abs()))).unwrap_or(usize::MAX);
        self.meter.items(count)?;
        let items = (0..count as i64).map(|i| Value::Int(start.wrapping_add(i.wrapping_mul(step)))).collect();
        Ok(Val::Data(Value::list(items)))
    }

    // ---- expressions

    fn expr(&mut self, expr: &'a Expr) -> Out {
        match expr {
            Expr::Const(value) => Ok(Val::Data(value.clone())),
            Expr::Var(name) => Ok(self.lookup(name)),
            _ => {
                self.meter.enter()?;
                let val = self.compound(expr)?;
                self.meter.leave();
                Ok(val)
            }
        }
    }

    fn lookup(&self, name: &Name) -> Val {
        if let Some(val) = self.frame.lookup(name) {
            return val;
        }
        if let Some(value) = self.scope.get(name) {
            return Val::Data(value.clone());
        }
        Global::named(name).map_or_else(|| Val::Undefined(Some(name.clone())), Val::Global)
    }

    fn compound(&mut self, expr: &'a Expr) -> Out {
        match expr {
            Expr::Const(_) | Expr::Var(_) => self.expr(expr),
            Expr::Postfix { base, steps } => self.postfix(base, steps),
            Expr::Binary { first, rest } => {
                let mut val = self.expr(first)?;
                for (op, right, at) in rest {
                    let right = self.expr(right)?;
                    self.meter.spend(1)?;
                    val = ops::binary(*op, &val, &right, &mut self.meter).map_err(|e| e.at(*at))?;
                }
                Ok(val)
            }
            Expr::And(all) => self.first(all, false),
            Expr::Or(any) => self.first(any, true),
            Expr::Not(inner) => Ok(Val::bool(!self.expr(inner)?.is_truthy())),
            Expr::Neg(inner, at) => ops::negate(&self.expr(inner)?).map_err(|e| e.at(*at)),
            Expr::Compare { first, rest, at } => {
                let mut left = self.expr(first)?;
                for (op, right) in rest {
                    let right = self.expr(right)?;
                    if !ops::compare(*op, &left, &right, &mut self.meter).map_err(|e| e.at(*at))? {
                        return Ok(Val::bool(false));
                    }
                    left = right;
                }
                Ok(Val::bool(true))
            }
            Expr::If { test, yes, no } => match (self.expr(test)?.is_truthy(), no) {
                (true, _) => self.expr(yes),
                (false, Some(no)) => self.expr(no),
                (false, None) => Ok(Val::Undefined(None)),
            },
            Expr::List(items) => self.list(items),
            Expr::Map(pairs) => {
                let mut map = Map::new();
                for (key, item) in pairs {
                    let (key, item) = (self.expr(key)?, self.expr(item)?);
                    ops::insert(&mut map, &key, item, &mut self.meter)?;
                }
                self.meter.items(0)?;
                Ok(Val::Data(Value::map(map)))
            }
        }
    }

    fn list(&mut self, items: &'a [Expr]) -> Out {
        self.meter.items(items.len())?;
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let value = self.expr(item)?.into_value()?;
            self.meter.measure(&value)?;
            out.push(value);
        }
        Ok(Val::Data(Value::list(out)))
    }

    /// The first operand whose truth is `wanted`, else the last.
    fn first(&mut self, operands: &'a [Expr], wanted: bool) -> Out {
        let mut last = Val::NULL;
        for operand in operands {
            last = self.expr(operand)?;
            if last.is_truthy() == wanted {
                break;
            }
        }
        Ok(last)
    }

    fn postfix(&mut self, base: &'a Expr, steps: &'a [(Step, u32)]) -> Out {
        let mut val = self.expr(base)?;
        for (i, (step, at)) in steps.iter().enumerate() {
            self.meter.spend(1)?;
            let path = || describe(base, &steps[..=i]);
            val = self.step(val, step, &path).map_err(|e| e.at(*at))?;
        }
        Ok(val)
    }

    fn step(&mut self, val: Val, step: &'a Step, path: &dyn Fn() -> String) -> Out {
        let missing = |found: Option<Val>| found.unwrap_or_else(|| Val::Undefined(Some(path().into())));
        match step {
            Step::Attr(name) => ops::attribute(&val, name).map(missing),
            Step::Item(key) => {
                let key = self.expr(key)?;
                ops::item(&val, &key, &mut self.meter).map(missing)
            }
            Step::Slice(parts) => {
                let mut values = [None, None, None];
                for (slot, part) in values.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        *slot = Some(self.expr(part)?);
                    }
                }
                ops::slice(&val, values, &mut self.meter)
            }
            Step::Call(args) => {
                let args = self.args(args)?;
                self.call(&val, path, args)
            }
            Step::Method(name, args) => {
                let args = self.args(args)?;
                self.method(&val, name, path, args)
            }
            Step::Filter(filter, args) => {
                let args = self.args(args)?;
                filter.apply(&mut self.meter, val, args)
            }
            Step::Test(check, args) => {
                let args = self.args(args)?;
                check.holds(&mut self.meter, &val, args).map(Val::bool)
            }
        }
    }

    fn method(&mut self, val: &Val, name: &str, path: &dyn Fn() -> String, args: Arguments) -> Out {
        match val {
            Val::Data(value) => methods::call(value, name, args, &mut self.meter),
            Val::Loop(state) => loop_method(state, name, args, &mut self.meter),
            Val::Cycler(state) => {
                args.finish()?;
                let current = ops::cycled(state);
                match name {
                    "next" => state.1.set((state.1.get() + 1) % state.0.len()),
                    "reset" => state.1.set(0),
                    _ => return Err(Fault::kind(format!("a cycler has no method `{name}`"))),
                }
                Ok(current)
            }
            Val::Undefined(below) => Err(undefined(below.as_deref())),
            Val::Namespace(_) | Val::Macro(..) | Val::Global(_) | Val::Joiner(_) => {
                let callee = ops::attribute(val, name)?.unwrap_or(Val::Undefined(None));
                self.call(&callee, path, args)
            }
        }
    }

    fn args(&mut self, args: &'a Args) -> Out<Arguments> {
        if args.positional.is_empty() && args.named.is_empty() {
            return Ok(Arguments::default());
        }
        let mut out = Arguments::default();
        for (expr, splat) in &args.positional {
            let val = self.expr(expr)?;
            if *splat {
                let items = val.items(&mut self.meter)?;
                self.meter.items(items.len())?;
                out.extend(items.iter().cloned().map(Val::Data));
            } else {
                out.push(val);
            }
        }
        for (name, expr) in &args.named {
            let val = self.expr(expr)?;
            match name {
                Some(name) => out.push_named(name.clone(), val)?,
                None => {
                    let Value::Map(map) = val.need()? else {
                        return Err(Fault::kind(format!("`**` needs a mapping, not {}", val.kind())));
                    };
                    self.meter.items(map.len())?;
                    for (name, item) in map.iter() {
                        out.push_named(name.clone(), Val::Data(item.clone()))?;
                    }
                }
            }
        }
        Ok(out)
    }
}

fn loop_method(state: &Loop, name: &str, mut args: Arguments, meter: &mut Meter) -> Out {
    let values = args.rest(0).into_iter().map(Val::into_value).collect::<Out<Vec<_>>>()?;
    args.finish()?;
    match name {
        "cycle" if !values.is_empty() => Ok(Val::Data(values[state.index.get() % values.len()].clone())),
        "changed" => {
            let (now, before) = (Value::list(values.clone()), state.changed.borrow().clone().map(Value::list));
            let changed = match before {
                Some(before) => !compare::same(&now, &before, meter)?,
                None => true,
            };
            state.changed.replace(Some(values));
            Ok(Val::bool(changed))
        }
        _ => Err(Fault::kind(format!("`loop.{name}(…)` does not exist or lacks its values"))),
    }
}

/// The path of a postfix expression as its author wrote it, for messages.
fn describe(base: &Expr, steps: &[(Step, u32)]) -> String {
    let mut out = match base {
        Expr::Var(name) => name.to_string(),
        Expr::Const(value) => ops::brief(&Val::Data(value.clone())),
        _ => "(…)".to_owned(),
    };
    for (step, _) in steps {
        match step {
            Step::Attr(name) => {
                out.push('.');
                out.push_str(name);
            }
            Step::Item(Expr::Const(key)) => {
                out.push('[');
                out.push_str(&ops::brief(&Val::Data(key.clone())));
                out.push(']');
            }
            Step::Item(_) | Step::Slice(_) => out.push_str("[…]"),
            Step::Method(name, _) => {
                out.push('.');
                out.push_str(name);
                out.push_str("(…)");
            }
            Step::Call(_) => out.push_str("(…)"),
            Step::Filter(filter, _) => {
                out.push_str(" | ");
                out.push_str(filter.name());
            }
            Step::Test(..) => out.push_str(" is …"),
        }
    }
    out
}

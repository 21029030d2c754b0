//! Calls while a template is rendered: macros, `loop(…)`, the global functions, methods, and their arguments.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use windlass_core::value::{Map, Value};

use super::{Frame, Out, Run};
use crate::eval::compare;
use crate::eval::meter::{Fault, Limits, Meter};
use crate::eval::template::arguments::Arguments;
use crate::eval::template::ir::{Args, Macro};
use crate::eval::template::val::{Global, Loop, Val, undefined};
use crate::eval::template::{methods, ops};

impl<'a> Run<'a> {
    pub(super) fn call(&mut self, callee: &Val, path: &dyn Fn() -> String, args: Arguments) -> Out {
        match callee {
            Val::Macro(decl, frame, caller) => self.call_macro(decl, frame, caller.as_deref(), args),
            Val::Global(global) => self.global(*global, args),
            Val::Loop(state) => self.recurse(state, args),
            Val::Joiner(state) => {
                args.finish()?;
                Ok(Val::text(if state.1.replace(true) { state.0.clone() } else { "".into() }))
            }
            Val::Undefined(known) => {
                let path = known.as_deref().map_or_else(path, str::to_owned);
                Err(undefined(Some(&path))
                    .hint("only macros, `range`, `dict`, `namespace`, `cycler` and `joiner` are functions"))
            }
            other => Err(Fault::kind(format!("a {} cannot be called", other.kind()))),
        }
    }

    pub(super) fn call_macro(
        &mut self,
        decl: &Arc<Macro>,
        frame: &Weak<Frame>,
        caller: Option<&Val>,
        mut args: Arguments,
    ) -> Out {
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
            Some(other) => Err(Fault::kind(format!("`range` takes whole numbers of 64 bits, not {}", other.kind()))),
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

    pub(super) fn method(&mut self, val: &Val, name: &str, path: &dyn Fn() -> String, args: Arguments) -> Out {
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

    pub(super) fn args(&mut self, args: &'a Args) -> Out<Arguments> {
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

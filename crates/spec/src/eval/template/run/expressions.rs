//! Expressions while a template is rendered.

use windlass_core::ids::Name;
use windlass_core::value::Map;
use windlass_core::value::Value;

use super::{Out, Run};
use crate::eval::template::ir::{Expr, Step};
use crate::eval::template::ops;
use crate::eval::template::val::{Global, Val};

impl<'a> Run<'a> {
    pub(super) fn expr(&mut self, expr: &'a Expr) -> Out {
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

    pub(super) fn lookup(&self, name: &Name) -> Val {
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

    pub(super) fn list(&mut self, items: &'a [Expr]) -> Out {
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

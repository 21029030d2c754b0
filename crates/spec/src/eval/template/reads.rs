//! The paths that a template names: an upper bound of what its result depends on, whatever branch is taken.

use windlass_core::ids::Name;
use windlass_core::value::Value;

use super::ir::{Args, Compiled, Expr, For, Macro, Node, Step};

/// Every path that a template names, each once. A path ends where a key is not fixed, where a filter or a method begins.
pub(super) fn of(template: &Compiled) -> Vec<Vec<Name>> {
    let mut reads = Reads::default();
    reads.nodes(&template.body);
    let mut found = reads.0;
    found.sort_unstable();
    // What is named whole needs no parts.
    found.dedup_by(|next, kept| next.starts_with(kept));
    found
}

#[derive(Default)]
struct Reads(Vec<Vec<Name>>);

impl Reads {
    fn nodes(&mut self, nodes: &[Node]) {
        nodes.iter().for_each(|node| self.node(node));
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Raw(_) | Node::Break | Node::Continue => {}
            Node::Emit { expr, .. } | Node::Do { expr, .. } | Node::Set { expr, .. } => self.expr(expr),
            Node::For(each) => self.each(each),
            Node::If { arms, otherwise, .. } => {
                for (test, body) in arms {
                    self.expr(test);
                    self.nodes(body);
                }
                self.nodes(otherwise);
            }
            Node::With { assignments, body, .. } => {
                assignments.iter().for_each(|(_, expr)| self.expr(expr));
                self.nodes(body);
            }
            Node::SetBlock { filters, body, .. } | Node::Filter { filters, body, .. } => {
                filters.iter().for_each(|step| self.step(step));
                self.nodes(body);
            }
            Node::Macro(declared) => self.declared(declared),
            Node::Call { call, body, .. } => {
                self.expr(call);
                self.declared(body);
            }
        }
    }

    fn each(&mut self, each: &For) {
        self.expr(&each.items);
        each.filter.iter().for_each(|filter| self.expr(filter));
        self.nodes(&each.body);
        self.nodes(&each.otherwise);
    }

    fn declared(&mut self, declared: &Macro) {
        declared.params.iter().filter_map(|(_, default)| default.as_ref()).for_each(|default| self.expr(default));
        self.nodes(&declared.body);
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Const(_) => {}
            Expr::Var(name) => self.0.push(vec![name.clone()]),
            Expr::Postfix { base, steps } => self.postfix(base, steps),
            Expr::Binary { first, rest } => {
                self.expr(first);
                rest.iter().for_each(|(_, expr, _)| self.expr(expr));
            }
            Expr::And(parts) | Expr::Or(parts) | Expr::List(parts) => parts.iter().for_each(|part| self.expr(part)),
            Expr::Not(inner) | Expr::Neg(inner, _) => self.expr(inner),
            Expr::Compare { first, rest, .. } => {
                self.expr(first);
                rest.iter().for_each(|(_, expr)| self.expr(expr));
            }
            Expr::If { test, yes, no } => {
                self.expr(test);
                self.expr(yes);
                no.iter().for_each(|no| self.expr(no));
            }
            Expr::Map(entries) => entries.iter().for_each(|(key, value)| {
                self.expr(key);
                self.expr(value);
            }),
        }
    }

    fn postfix(&mut self, base: &Expr, steps: &[(Step, u32)]) {
        let Expr::Var(name) = base else {
            self.expr(base);
            return steps.iter().for_each(|(step, _)| self.step(step));
        };
        let mut path = vec![name.clone()];
        let mut fixed = true;
        for (step, _) in steps {
            match step {
                Step::Attr(key) if fixed => path.push(key.clone()),
                Step::Item(Expr::Const(Value::Str(key))) if fixed => path.push(key.clone()),
                other => {
                    fixed = false;
                    self.step(other);
                }
            }
        }
        self.0.push(path);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Attr(_) => {}
            Step::Item(key) => self.expr(key),
            Step::Slice(bounds) => bounds.iter().flatten().for_each(|bound| self.expr(bound)),
            Step::Call(args) | Step::Method(_, args) | Step::Filter(_, args) | Step::Test(_, args) => self.args(args),
        }
    }

    fn args(&mut self, args: &Args) {
        args.positional.iter().for_each(|(expr, _)| self.expr(expr));
        args.named.iter().for_each(|(_, expr)| self.expr(expr));
    }
}

#[cfg(test)]
mod tests {
    use super::super::compile;

    #[track_caller]
    fn reads(source: &str, paths: &[&str]) {
        let found: Vec<String> = compile(source).expect("compiles").reads().iter().map(|path| path.join(".")).collect();
        assert_eq!(found, paths, "{source}");
    }

    #[test]
    fn every_named_path_is_read_whatever_branch_is_taken() {
        reads("no expression", &[]);
        reads("{{ context.a.b }} and {{ input['c'].d }}", &["context.a.b", "input.c.d"]);
        reads("{{ context.a if input.flag else context.b }}", &["context.a", "context.b", "input.flag"]);
        reads("{% if context.x > 1 %}a{% elif input.y %}b{% else %}c{% endif %}", &["context.x", "input.y"]);
        reads("{% for i in context.list if i.ok %}{{ i.name }}{% endfor %}", &["context.list", "i.name", "i.ok"]);
        reads("{% set v = context.a %}{{ v.secret }}", &["context.a", "v.secret"]);
        reads("{{ context[input.key].z }}", &["context", "input.key"]);
        reads("{{ context.items[0].x | join(input.sep) | upper }}", &["context.items", "input.sep"]);
        reads("{{ context | tojson }}{{ context.a }}", &["context"]);
        reads("{{ context.items() }}{{ {'k': input.v}.k ~ [output.w][0] }}", &["context", "input.v", "output.w"]);
        reads(
            "{% macro m(a=context.d) %}{{ a }}{{ input.e }}{% endmacro %}{{ m() }}",
            &["a", "context.d", "input.e", "m"],
        );
        reads(
            "{% with a = context.f %}{{ a }}{% endwith %}{% filter replace('x', input.g) %}y{% endfilter %}",
            &["a", "context.f", "input.g"],
        );
        reads(
            "{% set b %}{{ context.h }}{% endset %}{{ not context.i and -input.j == 3 }}",
            &["context.h", "context.i", "input.j"],
        );
    }
}

//! Template text to [`Compiled`]: the grammar is minijinja's, evaluation is ours.
//!
//! minijinja's own machine cannot bound what `~`, `+`, `*`, comparisons and captures allocate, so its parser is used
//! and its machine is not. A scan of the tokens bounds nesting and chains first: the parser recurses on them.

use std::sync::Arc;

use minijinja::machinery::ast;
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::value::Value;

use super::checks::Check;
use super::filters::Filter;
use super::ir::{Args, BinOp, CompareOp, Compiled, Expr, For, Macro, Node, Step, Target};
use super::meter::Fault;

/// Bytes of one template.
const SOURCE_BYTES_MAX: usize = 1024 * 1024;
/// Brackets within brackets in one tag.
const BRACKETS_MAX: usize = 40;
/// Operators, filters, attributes and the like in one tag, not counting commas.
const CHAIN_MAX: usize = 400;
/// Signs, `not`, `if` and `else` in one tag: the parser nests them.
const PREFIX_MAX: usize = 60;
/// Blocks within blocks; an `elif` counts as one.
const BLOCKS_MAX: usize = 80;

/// Compiles a template text.
pub(super) fn compile(source: &str) -> Result<Compiled, Fault> {
    scan(source)?;
    let tree = parse(source, "template", SyntaxConfig::default()).map_err(|error| syntax(&error, source))?;
    let ast::Stmt::Template(template) = &tree else {
        return Err(Fault::syntax("no template"));
    };
    Ok(Compiled { body: nodes(&template.children)? })
}

/// Bounds what the parser would recurse on.
fn scan(source: &str) -> Result<(), Fault> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(limit(format!("a template longer than {SOURCE_BYTES_MAX} bytes")));
    }
    let (mut brackets, mut chain, mut prefix) = (0_usize, 0_usize, 0_usize);
    let mut blocks: Vec<usize> = Vec::new();
    let (mut block_start, mut operand) = (false, false);
    for token in tokenize(source, false, SyntaxConfig::default()) {
        let (token, span) = token.map_err(|error| syntax(&error, source))?;
        let first = std::mem::replace(&mut block_start, matches!(token, Token::BlockStart));
        let after_operand = std::mem::replace(&mut operand, ends_operand(&token));
        match token {
            Token::VariableStart | Token::BlockStart | Token::VariableEnd | Token::BlockEnd => {
                (brackets, chain, prefix) = (0, 0, 0);
            }
            Token::Minus | Token::Plus if !after_operand => prefix += 1,
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => {
                brackets += 1;
                chain += 1;
            }
            Token::BracketClose | Token::ParenClose | Token::BraceClose => brackets = brackets.saturating_sub(1),
            Token::Ident(word) if first => track_block(word, &mut blocks),
            Token::Ident("not" | "if" | "else") => prefix += 1,
            Token::Ident("and" | "or" | "is" | "in") => chain += 1,
            Token::Comma
            | Token::Colon
            | Token::Assign
            | Token::TemplateData(_)
            | Token::Ident(_)
            | Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_) => {}
            _ => chain += 1,
        }
        let bound = if brackets > BRACKETS_MAX {
            format!("brackets nested deeper than {BRACKETS_MAX} levels")
        } else if prefix > PREFIX_MAX {
            format!("more than {PREFIX_MAX} signs, `not`, `if` and `else` in one tag")
        } else if chain > CHAIN_MAX {
            format!("more than {CHAIN_MAX} operators in one tag")
        } else if blocks.iter().sum::<usize>() > BLOCKS_MAX {
            format!("blocks nested deeper than {BLOCKS_MAX} levels")
        } else {
            continue;
        };
        return Err(limit(bound).at(span.start_offset));
    }
    Ok(())
}

/// Whether a sign after this token is an operator between two values.
fn ends_operand(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(word) => !matches!(*word, "not" | "if" | "else" | "and" | "or" | "is" | "in"),
        Token::Str(_)
        | Token::String(_)
        | Token::Int(_)
        | Token::Int128(_)
        | Token::Float(_)
        | Token::BracketClose
        | Token::ParenClose
        | Token::BraceClose => true,
        _ => false,
    }
}

fn track_block(word: &str, blocks: &mut Vec<usize>) {
    match word {
        "for" | "if" | "with" | "filter" | "macro" | "call" | "block" | "autoescape" => blocks.push(1),
        "elif" => {
            if let Some(last) = blocks.last_mut() {
                *last += 1;
            }
        }
        // `set` has an end only sometimes; the parser's own bound covers it.
        "endset" => {}
        _ if word.starts_with("end") => {
            blocks.pop();
        }
        _ => {}
    }
}

fn limit(message: String) -> Fault {
    Fault::new(Code::TemplateLimit, message)
}

fn syntax(error: &minijinja::Error, source: &str) -> Fault {
    let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let fault = Fault::syntax(message);
    match (error.range(), error.line()) {
        (Some(range), _) => fault.at(u32::try_from(range.start).unwrap_or(u32::MAX)),
        (None, Some(line)) => {
            let offset: usize = source.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
            fault.at(u32::try_from(offset).unwrap_or(u32::MAX))
        }
        (None, None) => fault,
    }
}

fn nodes(stmts: &[ast::Stmt<'_>]) -> Result<Vec<Node>, Fault> {
    stmts.iter().map(node).collect()
}

fn node(stmt: &ast::Stmt<'_>) -> Result<Node, Fault> {
    Ok(match stmt {
        ast::Stmt::Template(t) => Node::With { assignments: Vec::new(), body: nodes(&t.children)?, at: 0 },
        ast::Stmt::EmitExpr(e) => Node::Emit { expr: expr(&e.expr)?, at: e.span().start_offset },
        ast::Stmt::EmitRaw(raw) => Node::Raw(raw.raw.into()),
        ast::Stmt::ForLoop(f) => for_node(f)?,
        ast::Stmt::IfCond(cond) => if_node(cond)?,
        ast::Stmt::WithBlock(with) => Node::With {
            assignments: with
                .assignments
                .iter()
                .map(|(t, e)| Ok((target(t)?, expr(e)?)))
                .collect::<Result<_, Fault>>()?,
            body: nodes(&with.body)?,
            at: with.span().start_offset,
        },
        ast::Stmt::Set(set) => {
            Node::Set { target: target(&set.target)?, expr: expr(&set.expr)?, at: set.span().start_offset }
        }
        ast::Stmt::SetBlock(set) => Node::SetBlock {
            target: target(&set.target)?,
            filters: set.filter.as_ref().map_or_else(|| Ok(Vec::new()), filter_chain)?,
            body: nodes(&set.body)?,
            at: set.span().start_offset,
        },
        ast::Stmt::FilterBlock(block) => Node::Filter {
            filters: filter_chain(&block.filter)?,
            body: nodes(&block.body)?,
            at: block.span().start_offset,
        },
        ast::Stmt::Block(block) => {
            Node::With { assignments: Vec::new(), body: nodes(&block.body)?, at: block.span().start_offset }
        }
        ast::Stmt::Macro(m) => Node::Macro(Arc::new(macro_node(m, m.span().start_offset)?)),
        ast::Stmt::CallBlock(block) => Node::Call {
            call: call(&block.call)?,
            body: Arc::new(macro_node(&block.macro_decl, block.span().start_offset)?),
            at: block.span().start_offset,
        },
        ast::Stmt::Do(d) => Node::Do { expr: call(&d.call)?, at: d.span().start_offset },
        ast::Stmt::Continue(_) => Node::Continue,
        ast::Stmt::Break(_) => Node::Break,
        ast::Stmt::AutoEscape(s) => return Err(refused("autoescape", s.span().start_offset)),
        ast::Stmt::Import(s) => return Err(refused("import", s.span().start_offset)),
        ast::Stmt::FromImport(s) => return Err(refused("from", s.span().start_offset)),
        ast::Stmt::Extends(s) => return Err(refused("extends", s.span().start_offset)),
        ast::Stmt::Include(s) => return Err(refused("include", s.span().start_offset)),
    })
}

fn refused(tag: &str, at: u32) -> Fault {
    Fault::syntax(format!("`{{% {tag} %}}` is not available"))
        .hint("a template stands alone: it reads no files and no other templates; use `| e` to escape")
        .at(at)
}

fn for_node(f: &ast::Spanned<ast::ForLoop<'_>>) -> Result<Node, Fault> {
    Ok(Node::For(Box::new(For {
        target: target(&f.target)?,
        items: expr(&f.iter)?,
        filter: f.filter_expr.as_ref().map(expr).transpose()?,
        recursive: f.recursive,
        body: nodes(&f.body)?,
        otherwise: nodes(&f.else_body)?,
        at: f.span().start_offset,
    })))
}

/// Follows `elif`, which the parser nests, along one list of arms.
fn if_node(cond: &ast::Spanned<ast::IfCond<'_>>) -> Result<Node, Fault> {
    let at = cond.span().start_offset;
    let mut arms = vec![(expr(&cond.expr)?, nodes(&cond.true_body)?)];
    let mut rest = cond.false_body.as_slice();
    while let [ast::Stmt::IfCond(next)] = rest {
        arms.push((expr(&next.expr)?, nodes(&next.true_body)?));
        rest = &next.false_body;
    }
    Ok(Node::If { arms, otherwise: nodes(rest)?, at })
}

fn macro_node(m: &ast::Macro<'_>, at: u32) -> Result<Macro, Fault> {
    let required = m.args.len().saturating_sub(m.defaults.len());
    let mut params = Vec::with_capacity(m.args.len());
    for (i, arg) in m.args.iter().enumerate() {
        let ast::Expr::Var(var) = arg else {
            return Err(Fault::syntax("a macro's parameter is a name").at(at));
        };
        let default = i.checked_sub(required).and_then(|d| m.defaults.get(d)).map(expr).transpose()?;
        params.push((Name::from(var.id), default));
    }
    Ok(Macro { name: m.name.into(), params, body: nodes(&m.body)?, at })
}

fn target(e: &ast::Expr<'_>) -> Result<Target, Fault> {
    match e {
        ast::Expr::Var(var) => Ok(Target::Name(var.id.into())),
        ast::Expr::List(list) => list.items.iter().map(target).collect::<Result<_, _>>().map(Target::Many),
        ast::Expr::Tuple(tuple) => tuple.items.iter().map(target).collect::<Result<_, _>>().map(Target::Many),
        ast::Expr::GetAttr(attr) => match &attr.expr {
            ast::Expr::Var(var) => Ok(Target::Field(var.id.into(), attr.name.into())),
            _ => Err(Fault::syntax("only a field of a namespace can be set").at(attr.span().start_offset)),
        },
        other => Err(Fault::syntax("cannot assign to this").at(other.span().start_offset)),
    }
}

/// The steps of `{% filter a | b %}`, in order.
fn filter_chain(e: &ast::Expr<'_>) -> Result<Vec<Step>, Fault> {
    let mut steps = Vec::new();
    let mut current = Some(e);
    while let Some(ast::Expr::Filter(f)) = current {
        steps.push(Step::Filter(Filter::named(f.name).map_err(|e| e.at(f.span().start_offset))?, args(&f.args)?));
        current = f.expr.as_ref();
    }
    steps.reverse();
    Ok(steps)
}

fn expr(e: &ast::Expr<'_>) -> Result<Expr, Fault> {
    Ok(match e {
        ast::Expr::Const(c) => Expr::Const(constant(&c.value)?),
        ast::Expr::Var(var) => Expr::Var(var.id.into()),
        ast::Expr::UnaryOp(unary) => match unary.op {
            ast::UnaryOpKind::Not => Expr::Not(Box::new(expr(&unary.expr)?)),
            ast::UnaryOpKind::Neg => Expr::Neg(Box::new(expr(&unary.expr)?), unary.span().start_offset),
        },
        ast::Expr::BinOp(bin) => binary(bin)?,
        ast::Expr::Compare(c) => Expr::Compare {
            first: Box::new(expr(&c.expr)?),
            rest: c.ops.iter().map(|o| Ok((compare_op(o.op), expr(&o.expr)?))).collect::<Result<_, Fault>>()?,
            at: c.span().start_offset,
        },
        ast::Expr::IfExpr(cond) => Expr::If {
            test: Box::new(expr(&cond.test_expr)?),
            yes: Box::new(expr(&cond.true_expr)?),
            no: cond.false_expr.as_ref().map(|e| expr(e).map(Box::new)).transpose()?,
        },
        ast::Expr::List(list) => Expr::List(list.items.iter().map(expr).collect::<Result<_, _>>()?),
        ast::Expr::Tuple(tuple) => Expr::List(tuple.items.iter().map(expr).collect::<Result<_, _>>()?),
        ast::Expr::Map(map) => Expr::Map(
            map.keys.iter().zip(&map.values).map(|(k, v)| Ok((expr(k)?, expr(v)?))).collect::<Result<_, Fault>>()?,
        ),
        ast::Expr::Slice(_)
        | ast::Expr::Filter(_)
        | ast::Expr::Test(_)
        | ast::Expr::GetAttr(_)
        | ast::Expr::GetItem(_)
        | ast::Expr::Call(_) => postfix(e)?,
    })
}

fn constant(value: &minijinja::Value) -> Result<Value, Fault> {
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Some(text) = value.as_str() {
        return Ok(Value::str(text));
    }
    if !value.is_number() {
        return Ok(Value::Bool(value.is_true()));
    }
    let number = if value.is_integer() {
        i64::try_from(value.clone()).ok().map(Value::Int)
    } else {
        f64::try_from(value.clone()).ok().and_then(Value::float)
    };
    number.ok_or_else(|| {
        Fault::syntax(format!("the number {value} cannot be kept exactly: whole numbers go from -2^63 to 2^63-1"))
            .hint("write it as text, or with a decimal point if it may be rounded")
    })
}

/// Walks down the left side of a chain in a loop and turns it into steps from left to right.
fn postfix(e: &ast::Expr<'_>) -> Result<Expr, Fault> {
    let mut steps = Vec::new();
    let mut current = e;
    let base = loop {
        let at = current.span().start_offset;
        let (step, inner) = match current {
            ast::Expr::GetAttr(attr) => (Step::Attr(attr.name.into()), &attr.expr),
            ast::Expr::GetItem(item) => (Step::Item(expr(&item.subscript_expr)?), &item.expr),
            ast::Expr::Slice(s) => {
                let part = |e: &Option<ast::Expr<'_>>| e.as_ref().map(expr).transpose();
                (Step::Slice(Box::new([part(&s.start)?, part(&s.stop)?, part(&s.step)?])), &s.expr)
            }
            ast::Expr::Call(c) => match &c.expr {
                ast::Expr::GetAttr(attr) => (Step::Method(attr.name.into(), args(&c.args)?), &attr.expr),
                callee => (Step::Call(args(&c.args)?), callee),
            },
            ast::Expr::Filter(f) => {
                let filter = Filter::named(f.name).map_err(|e| e.at(at))?;
                let inner = f.expr.as_ref().ok_or_else(|| Fault::syntax("a filter without a value").at(at))?;
                (Step::Filter(filter, args(&f.args)?), inner)
            }
            ast::Expr::Test(t) => {
                let check = Check::named(t.name).map_err(|e| e.at(at))?;
                (Step::Test(check, args(&t.args)?), &t.expr)
            }
            other => break expr(other)?,
        };
        steps.push((step, at));
        current = inner;
    };
    steps.reverse();
    Ok(Expr::Postfix { base: Box::new(base), steps })
}

fn call(c: &ast::Spanned<ast::Call<'_>>) -> Result<Expr, Fault> {
    let at = c.span().start_offset;
    let (step, inner) = match &c.expr {
        ast::Expr::GetAttr(attr) => (Step::Method(attr.name.into(), args(&c.args)?), &attr.expr),
        callee => (Step::Call(args(&c.args)?), callee),
    };
    Ok(match expr(inner)? {
        Expr::Postfix { base, mut steps } => {
            steps.push((step, at));
            Expr::Postfix { base, steps }
        }
        base => Expr::Postfix { base: Box::new(base), steps: vec![(step, at)] },
    })
}

fn args(list: &[ast::CallArg<'_>]) -> Result<Args, Fault> {
    let mut out = Args::default();
    for arg in list {
        match arg {
            ast::CallArg::Pos(e) => out.positional.push((expr(e)?, false)),
            ast::CallArg::PosSplat(e) => out.positional.push((expr(e)?, true)),
            ast::CallArg::Kwarg(name, e) => out.named.push((Some((*name).into()), expr(e)?)),
            ast::CallArg::KwargSplat(e) => out.named.push((None, expr(e)?)),
        }
    }
    Ok(out)
}

fn binary(bin: &ast::Spanned<ast::BinOp<'_>>) -> Result<Expr, Fault> {
    match bin.op {
        ast::BinOpKind::ScAnd => return operands(bin, true).map(Expr::And),
        ast::BinOpKind::ScOr => return operands(bin, false).map(Expr::Or),
        _ => {}
    }
    let Some(_) = value_op(bin.op) else {
        let op = test_op(bin.op).ok_or_else(|| Fault::syntax("unknown operator"))?;
        return Ok(Expr::Compare {
            first: Box::new(expr(&bin.left)?),
            rest: vec![(op, expr(&bin.right)?)],
            at: bin.span().start_offset,
        });
    };
    let mut rest = Vec::new();
    let mut current = bin;
    let first = loop {
        let Some(op) = value_op(current.op) else {
            return Err(Fault::syntax("unknown operator"));
        };
        rest.push((op, expr(&current.right)?, current.span().start_offset));
        match &current.left {
            ast::Expr::BinOp(next) if value_op(next.op).is_some() => current = next,
            other => break expr(other)?,
        }
    };
    rest.reverse();
    Ok(Expr::Binary { first: Box::new(first), rest })
}

/// The operands of a chain of one logical operator.
fn operands(bin: &ast::Spanned<ast::BinOp<'_>>, and: bool) -> Result<Vec<Expr>, Fault> {
    let same = |op: ast::BinOpKind| match op {
        ast::BinOpKind::ScAnd => and,
        ast::BinOpKind::ScOr => !and,
        _ => false,
    };
    let mut out = Vec::new();
    let mut current = bin;
    loop {
        out.push(expr(&current.right)?);
        match &current.left {
            ast::Expr::BinOp(next) if same(next.op) => current = next,
            other => {
                out.push(expr(other)?);
                out.reverse();
                return Ok(out);
            }
        }
    }
}

fn value_op(op: ast::BinOpKind) -> Option<BinOp> {
    Some(match op {
        ast::BinOpKind::Add => BinOp::Add,
        ast::BinOpKind::Sub => BinOp::Sub,
        ast::BinOpKind::Mul => BinOp::Mul,
        ast::BinOpKind::Div => BinOp::Div,
        ast::BinOpKind::FloorDiv => BinOp::FloorDiv,
        ast::BinOpKind::Rem => BinOp::Rem,
        ast::BinOpKind::Pow => BinOp::Pow,
        ast::BinOpKind::Concat => BinOp::Concat,
        _ => return None,
    })
}

fn test_op(op: ast::BinOpKind) -> Option<CompareOp> {
    Some(match op {
        ast::BinOpKind::Eq => CompareOp::Eq,
        ast::BinOpKind::Ne => CompareOp::Ne,
        ast::BinOpKind::Lt => CompareOp::Lt,
        ast::BinOpKind::Lte => CompareOp::Le,
        ast::BinOpKind::Gt => CompareOp::Gt,
        ast::BinOpKind::Gte => CompareOp::Ge,
        ast::BinOpKind::In => CompareOp::In,
        _ => return None,
    })
}

fn compare_op(op: ast::CompareOpKind) -> CompareOp {
    match op {
        ast::CompareOpKind::Eq => CompareOp::Eq,
        ast::CompareOpKind::Ne => CompareOp::Ne,
        ast::CompareOpKind::Lt => CompareOp::Lt,
        ast::CompareOpKind::Lte => CompareOp::Le,
        ast::CompareOpKind::Gt => CompareOp::Gt,
        ast::CompareOpKind::Gte => CompareOp::Ge,
        ast::CompareOpKind::In => CompareOp::In,
        ast::CompareOpKind::NotIn => CompareOp::NotIn,
    }
}

//! From a parsed template to one whose every operator, lookup and loop asks Python's rules.
//!
//! minijinja parses as Jinja does and runs the control flow. What its operators, attributes and loops make of values
//! differs from Python here and there, without a word; so each is replaced by a filter of ours (`%add`, `%attr`, …),
//! under names that no template can write.

use super::python::unsupported;
use minijinja::machinery::{Span, ast};
use minijinja::{Error, Value};

use ast::{Expr, Spanned, Stmt};

/// Rewrites one template.
#[derive(Default)]
pub(super) struct Dialect {
    macros: usize,
    /// Names that minijinja would bind before Jinja does.
    early: Vec<String>,
}

impl Dialect {
    /// The statements in `body`, rewritten.
    ///
    /// # Errors
    /// For a construct that would be rendered differently; it is named.
    pub fn statements<'a>(&mut self, body: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>, Error> {
        body.iter().map(|statement| self.statement(statement)).collect()
    }

    fn statement<'a>(&mut self, statement: &Stmt<'a>) -> Result<Stmt<'a>, Error> {
        Ok(match statement {
            Stmt::Template(node) => {
                let children = self.statements(&node.children)?;
                Stmt::Template(Spanned::new(ast::Template { children }, node.span()))
            }
            Stmt::EmitExpr(node) => {
                let expr = self.expr(&node.expr)?;
                Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr }, node.span()))
            }
            // As an expression, so that its bytes count as output.
            Stmt::EmitRaw(node) => {
                let expr = constant(Value::from(node.raw), node.span());
                Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr }, node.span()))
            }
            Stmt::ForLoop(node) => Stmt::ForLoop(Spanned::new(
                ast::ForLoop {
                    target: self.target(&node.target)?,
                    iter: filter("%iter", self.expr(&node.iter)?, Vec::new(), node.iter.span()),
                    filter_expr: self.optional(node.filter_expr.as_ref())?,
                    recursive: node.recursive,
                    body: self.statements(&node.body)?,
                    else_body: self.statements(&node.else_body)?,
                },
                node.span(),
            )),
            Stmt::IfCond(node) => Stmt::IfCond(Spanned::new(
                ast::IfCond {
                    expr: self.expr(&node.expr)?,
                    true_body: self.statements(&node.true_body)?,
                    false_body: self.statements(&node.false_body)?,
                },
                node.span(),
            )),
            Stmt::WithBlock(node) => {
                let known = self.early.len();
                let mut assignments = Vec::new();
                for (target, expr) in &node.assignments {
                    let expr = self.expr(expr)?;
                    self.early.extend(names(target).into_iter().map(str::to_owned));
                    assignments.push((self.target(target)?, expr));
                }
                self.early.truncate(known);
                let body = self.statements(&node.body)?;
                Stmt::WithBlock(Spanned::new(ast::WithBlock { assignments, body }, node.span()))
            }
            Stmt::Set(node) => {
                let set = ast::Set { target: self.target(&node.target)?, expr: self.expr(&node.expr)? };
                Stmt::Set(Spanned::new(set, node.span()))
            }
            Stmt::SetBlock(node) => Stmt::SetBlock(Spanned::new(
                ast::SetBlock {
                    target: self.target(&node.target)?,
                    filter: self.optional(node.filter.as_ref())?,
                    body: self.scope(&node.body, node.span())?,
                },
                node.span(),
            )),
            Stmt::FilterBlock(node) => Stmt::FilterBlock(Spanned::new(
                ast::FilterBlock {
                    filter: self.expr(&node.filter)?,
                    filter_span: node.filter_span,
                    body: self.scope(&node.body, node.span())?,
                },
                node.span(),
            )),
            Stmt::Macro(node) => Stmt::Macro(self.macro_decl(node)?),
            Stmt::CallBlock(node) => Stmt::CallBlock(Spanned::new(
                ast::CallBlock {
                    call: match self.call(&node.call)? {
                        Expr::Call(call) => call,
                        _ => return Err(unsupported("{% call %} of a method")),
                    },
                    call_expr_span: node.call_expr_span,
                    macro_decl: self.macro_decl(&node.macro_decl)?,
                },
                node.span(),
            )),
            Stmt::Continue(node) => Stmt::Continue(Spanned::new(ast::Continue, node.span())),
            Stmt::Break(node) => Stmt::Break(Spanned::new(ast::Break, node.span())),
            Stmt::AutoEscape(_) => return Err(unsupported("the tag {% autoescape %}")),
            Stmt::Do(_) => {
                return Err(unsupported("the tag {% do %}, which the Hub's library does not know either,"));
            }
        })
    }

    /// A body whose variables end with it.
    fn scope<'a>(&mut self, body: &[Stmt<'a>], span: Span) -> Result<Vec<Stmt<'a>>, Error> {
        let body = self.statements(body)?;
        Ok(vec![Stmt::WithBlock(Spanned::new(ast::WithBlock { assignments: Vec::new(), body }, span))])
    }

    /// A macro without defaults, which begins by setting what was not given: in order, and so that an undefined
    /// argument is not taken for a missing one.
    fn macro_decl<'a>(&mut self, node: &Spanned<ast::Macro<'a>>) -> Result<Spanned<ast::Macro<'a>>, Error> {
        self.macros += 1;
        let span = node.span();
        let mut body = Vec::new();
        let plain = node.args.len() - node.defaults.len();
        for (index, arg) in node.args.iter().enumerate() {
            let Expr::Var(var) = arg else { return Err(unsupported("a parameter that is no name")) };
            let name = || variable(var.id, span);
            let given = filter("%given", name(), Vec::new(), span);
            let expr = match index.checked_sub(plain).and_then(|index| node.defaults.get(index)) {
                None => given,
                Some(default) => {
                    let missing = ast::Test { name: "undefined", expr: name(), args: Vec::new() };
                    Expr::IfExpr(Spanned::new(
                        ast::IfExpr {
                            test_expr: Expr::Test(Spanned::new(missing, span)),
                            true_expr: self.expr(default)?,
                            false_expr: Some(given),
                        },
                        span,
                    ))
                }
            };
            body.push(Stmt::Set(Spanned::new(ast::Set { target: name(), expr }, span)));
        }
        body.extend(self.statements(&node.body)?);
        self.macros -= 1;
        let args = node.args.iter().map(|arg| self.target(arg)).collect::<Result<_, _>>()?;
        Ok(Spanned::new(ast::Macro { name: node.name, args, defaults: Vec::new(), body }, span))
    }

    /// What is assigned to.
    fn target<'a>(&mut self, target: &Expr<'a>) -> Result<Expr<'a>, Error> {
        Ok(match target {
            Expr::Var(node) => variable(node.id, node.span()),
            Expr::List(node) => {
                let items = node.items.iter().map(|item| self.target(item)).collect::<Result<_, _>>()?;
                Expr::List(Spanned::new(ast::List { items }, node.span()))
            }
            Expr::GetAttr(node) if node.name.starts_with('_') => {
                return Err(unsupported("an attribute of a namespace that begins with an underscore"));
            }
            Expr::GetAttr(node) => {
                let attr = ast::GetAttr { expr: self.target(&node.expr)?, name: node.name };
                Expr::GetAttr(Spanned::new(attr, node.span()))
            }
            _ => return Err(unsupported("this target of an assignment")),
        })
    }

    fn optional<'a>(&mut self, expr: Option<&Expr<'a>>) -> Result<Option<Expr<'a>>, Error> {
        expr.map(|expr| self.expr(expr)).transpose()
    }

    fn exprs<'a>(&mut self, exprs: &[Expr<'a>]) -> Result<Vec<Expr<'a>>, Error> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    fn expr<'a>(&mut self, expr: &Expr<'a>) -> Result<Expr<'a>, Error> {
        let span = expr.span();
        Ok(match expr {
            Expr::Var(node) => {
                let special = self.macros > 0 && matches!(node.id, "varargs" | "kwargs");
                if special || node.id == "self" || node.id == "super" {
                    return Err(unsupported(&format!("the variable '{}'", node.id)));
                }
                if self.early.iter().any(|name| name == node.id) {
                    return Err(unsupported("a value in {% with %} that uses another one of the same tag"));
                }
                variable(node.id, span)
            }
            Expr::Const(node) => constant(node.value.clone(), span),
            Expr::Slice(node) => {
                let mut bound = |bound: Option<&Expr<'a>>| match bound {
                    Some(bound) => self.expr(bound),
                    None => Ok(constant(Value::from(()), span)),
                };
                let bounds =
                    [bound(node.start.as_ref())?, bound(node.stop.as_ref())?, bound(node.step.as_ref())?];
                filter("%slice", self.expr(&node.expr)?, Vec::from(bounds), span)
            }
            Expr::UnaryOp(node) => match node.op {
                ast::UnaryOpKind::Neg => filter("%neg", self.expr(&node.expr)?, Vec::new(), span),
                ast::UnaryOpKind::Not => {
                    let not = ast::UnaryOp { op: ast::UnaryOpKind::Not, expr: self.expr(&node.expr)? };
                    Expr::UnaryOp(Spanned::new(not, span))
                }
            },
            Expr::BinOp(node) => {
                let (left, right) = (self.expr(&node.left)?, self.expr(&node.right)?);
                binary(node.op, left, right, span)
            }
            Expr::Compare(node) => self.chain(node)?,
            Expr::IfExpr(node) => Expr::IfExpr(Spanned::new(
                ast::IfExpr {
                    test_expr: self.expr(&node.test_expr)?,
                    true_expr: self.expr(&node.true_expr)?,
                    false_expr: self.optional(node.false_expr.as_ref())?,
                },
                span,
            )),
            Expr::Filter(node) => {
                let expr = self.optional(node.expr.as_ref())?;
                let args = self.args(&node.args, false)?;
                Expr::Filter(Spanned::new(ast::Filter { name: node.name, expr, args }, span))
            }
            Expr::Test(node) => {
                let test = ast::Test {
                    name: node.name,
                    expr: self.expr(&node.expr)?,
                    args: self.args(&node.args, false)?,
                };
                Expr::Test(Spanned::new(test, span))
            }
            Expr::GetAttr(node) => {
                let name = constant(Value::from(node.name), span);
                filter("%attr", self.expr(&node.expr)?, vec![name], span)
            }
            Expr::GetItem(node) => {
                let key = self.expr(&node.subscript_expr)?;
                filter("%item", self.expr(&node.expr)?, vec![key], span)
            }
            Expr::Call(node) => self.call(node)?,
            Expr::List(node) => {
                let items = self.exprs(&node.items)?;
                built(Expr::List(Spanned::new(ast::List { items }, span)), span)
            }
            Expr::Tuple(node) => {
                let items = self.exprs(&node.items)?;
                built(Expr::Tuple(Spanned::new(ast::Tuple { items }, span)), span)
            }
            Expr::Map(node) => {
                let (keys, values) = (self.exprs(&node.keys)?, self.exprs(&node.values)?);
                built(Expr::Map(Spanned::new(ast::Map { keys, values }, span)), span)
            }
        })
    }

    /// `a < b < c` as `a < b and b < c`.
    fn chain<'a>(&mut self, node: &Spanned<ast::Compare<'a>>) -> Result<Expr<'a>, Error> {
        use ast::{BinOpKind, CompareOpKind};
        let span = node.span();
        let mut left = &node.expr;
        let mut whole: Option<Expr<'a>> = None;
        for link in &node.ops {
            let (op, negated) = match link.op {
                CompareOpKind::Eq => (BinOpKind::Eq, false),
                CompareOpKind::Ne => (BinOpKind::Ne, false),
                CompareOpKind::Lt => (BinOpKind::Lt, false),
                CompareOpKind::Lte => (BinOpKind::Lte, false),
                CompareOpKind::Gt => (BinOpKind::Gt, false),
                CompareOpKind::Gte => (BinOpKind::Gte, false),
                CompareOpKind::In => (BinOpKind::In, false),
                CompareOpKind::NotIn => (BinOpKind::In, true),
            };
            let one = binary(op, self.expr(left)?, self.expr(&link.expr)?, span);
            let one = match negated {
                true => {
                    Expr::UnaryOp(Spanned::new(ast::UnaryOp { op: ast::UnaryOpKind::Not, expr: one }, span))
                }
                false => one,
            };
            whole = Some(match whole {
                Some(whole) => binary(BinOpKind::ScAnd, whole, one, span),
                None => one,
            });
            left = &link.expr;
        }
        whole.ok_or_else(|| unsupported("a comparison of nothing"))
    }

    fn call<'a>(&mut self, node: &Spanned<ast::Call<'a>>) -> Result<Expr<'a>, Error> {
        let span = node.span();
        if let Expr::GetAttr(method) = &node.expr {
            let mut args = vec![ast::CallArg::Pos(constant(Value::from(method.name), span))];
            args.extend(self.args(&node.args, false)?);
            let expr = Some(self.expr(&method.expr)?);
            return Ok(Expr::Filter(Spanned::new(ast::Filter { name: "%call", expr, args }, span)));
        }
        let expr = self.expr(&node.expr)?;
        let again = matches!(&node.expr, Expr::Var(var) if var.id == "loop");
        let args = match (again, &node.args[..]) {
            (true, [ast::CallArg::Pos(items)]) => {
                vec![ast::CallArg::Pos(filter("%iter", self.expr(items)?, Vec::new(), span))]
            }
            _ => self.args(&node.args, true)?,
        };
        Ok(Expr::Call(Spanned::new(ast::Call { expr, args }, span)))
    }

    /// Arguments; those of a macro so that an undefined one is told from a missing one.
    fn args<'a>(&mut self, args: &[ast::CallArg<'a>], marked: bool) -> Result<Vec<ast::CallArg<'a>>, Error> {
        let mut one = |expr: &Expr<'a>| -> Result<Expr<'a>, Error> {
            let span = expr.span();
            let expr = self.expr(expr)?;
            Ok(if marked && expr.as_const().is_none() {
                filter("%arg", expr, Vec::new(), span)
            } else {
                expr
            })
        };
        args.iter()
            .map(|arg| {
                Ok(match arg {
                    ast::CallArg::Pos(expr) => ast::CallArg::Pos(one(expr)?),
                    ast::CallArg::Kwarg(name, expr) => ast::CallArg::Kwarg(name, one(expr)?),
                    ast::CallArg::PosSplat(_) | ast::CallArg::KwargSplat(_) => {
                        return Err(unsupported("`*` and `**` in a call"));
                    }
                })
            })
            .collect()
    }
}

/// Names that an assignment binds.
fn names<'a>(target: &Expr<'a>) -> Vec<&'a str> {
    match target {
        Expr::Var(node) => vec![node.id],
        Expr::List(node) => node.items.iter().flat_map(names).collect(),
        _ => Vec::new(),
    }
}

fn variable(id: &str, span: Span) -> Expr<'_> {
    Expr::Var(Spanned::new(ast::Var { id }, span))
}

fn constant<'a>(value: Value, span: Span) -> Expr<'a> {
    Expr::Const(Spanned::new(ast::Const { value }, span))
}

fn filter<'a>(name: &'a str, expr: Expr<'a>, args: Vec<Expr<'a>>, span: Span) -> Expr<'a> {
    let args = args.into_iter().map(ast::CallArg::Pos).collect();
    Expr::Filter(Spanned::new(ast::Filter { name, expr: Some(expr), args }, span))
}

/// A container, looked at once it is built unless it is a constant.
fn built<'a>(expr: Expr<'a>, span: Span) -> Expr<'a> {
    match expr.as_const() {
        Some(_) => expr,
        None => filter("%built", expr, Vec::new(), span),
    }
}

fn binary<'a>(op: ast::BinOpKind, left: Expr<'a>, right: Expr<'a>, span: Span) -> Expr<'a> {
    use ast::BinOpKind;
    let name = match op {
        // Those are Python's in minijinja too.
        BinOpKind::ScAnd | BinOpKind::ScOr => {
            return Expr::BinOp(Spanned::new(ast::BinOp { op, left, right }, span));
        }
        BinOpKind::Eq => "%==",
        BinOpKind::Ne => "%!=",
        BinOpKind::Lt => "%<",
        BinOpKind::Lte => "%<=",
        BinOpKind::Gt => "%>",
        BinOpKind::Gte => "%>=",
        BinOpKind::Add => "%+",
        BinOpKind::Sub => "%-",
        BinOpKind::Mul => "%*",
        BinOpKind::Div => "%/",
        BinOpKind::FloorDiv => "%//",
        BinOpKind::Rem => "%%",
        BinOpKind::Pow => "%**",
        BinOpKind::Concat => "%~",
        BinOpKind::In => "%in",
    };
    filter(name, left, vec![right], span)
}

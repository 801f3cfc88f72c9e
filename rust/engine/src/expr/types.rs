//! The type of an expression, and all that can be wrong with it.

use dataflow_protocol::plan::{Expr, Func};
use dataflow_protocol::value::Type;

/// How deep expressions may nest: evaluation recurses.
const MAX_DEPTH: usize = 128;

/// The type of `expr` over a row of `columns`.
///
/// # Errors
///
/// What is wrong with it, in words.
pub(crate) fn type_of(expr: &Expr, columns: &[Type]) -> Result<Type, String> {
    at_depth(expr, columns, 0)
}

fn at_depth(expr: &Expr, columns: &[Type], depth: usize) -> Result<Type, String> {
    if depth > MAX_DEPTH {
        return Err(format!("expression nested deeper than {MAX_DEPTH}"));
    }
    match expr {
        Expr::Col(index) => columns
            .get(*index)
            .copied()
            .ok_or_else(|| format!("column {index} of a row of {}", columns.len())),
        Expr::Const(value) => Ok(value.ty()),
        Expr::Call { func, over, args } => {
            let types =
                args.iter().map(|arg| at_depth(arg, columns, depth + 1)).collect::<Result<Vec<_>, _>>()?;
            call(*func, *over, &types)
        }
    }
}

const NUMERIC: &[Type] = &[Type::Number, Type::Unsigned, Type::Float];
const INTEGER: &[Type] = &[Type::Number, Type::Unsigned];
const ANY: &[Type] = &[Type::Number, Type::Unsigned, Type::Float, Type::Symbol, Type::Bool];

/// The type of a call: the types it may be taken over, its arguments' types, its result.
fn call(func: Func, over: Type, args: &[Type]) -> Result<Type, String> {
    use Func::*;
    let (overs, arity, result) = match func {
        Eq | Ne | Lt | Le | Gt | Ge => (ANY, 2..=2, Type::Bool),
        And | Or => (&[Type::Bool][..], 2..=2, Type::Bool),
        Not => (&[Type::Bool][..], 1..=1, Type::Bool),
        Add | Sub | Mul | Div | Pow => (NUMERIC, 2..=2, over),
        Mod => (INTEGER, 2..=2, over),
        Neg => (&[Type::Number, Type::Float][..], 1..=1, over),
        Min | Max => (ANY, 2..=usize::MAX, over),
        Band | Bor | Bxor | Bshl | Bshr | Bshru | Land | Lor | Lxor => (INTEGER, 2..=2, over),
        Bnot | Lnot => (INTEGER, 1..=1, over),
        Cat => (&[Type::Symbol][..], 2..=usize::MAX, Type::Symbol),
        Strlen => (&[Type::Symbol][..], 1..=1, Type::Number),
        Substr => (&[Type::Symbol][..], 3..=3, Type::Symbol),
        Contains | Match => (&[Type::Symbol][..], 2..=2, Type::Bool),
        ToNumber => (ANY, 1..=1, Type::Number),
        ToUnsigned => (ANY, 1..=1, Type::Unsigned),
        ToFloat => (ANY, 1..=1, Type::Float),
        ToSymbol => (ANY, 1..=1, Type::Symbol),
    };
    if !overs.contains(&over) {
        return Err(format!("{func:?} is not defined over {}", over.name()));
    }
    if !arity.contains(&args.len()) {
        return Err(format!("{func:?} takes {} arguments, not {}", arity.start(), args.len()));
    }
    let expected = |index: usize| if func == Substr && index > 0 { Type::Number } else { over };
    match args.iter().enumerate().find(|&(index, &ty)| ty != expected(index)) {
        Some((index, ty)) => {
            Err(format!("argument {index} of {func:?} is a {}, not a {}", ty.name(), expected(index).name()))
        }
        None => Ok(result),
    }
}

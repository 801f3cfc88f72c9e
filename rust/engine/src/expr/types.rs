//! The type of an expression, and all that can be wrong with it.

use dataflow_protocol::plan::{Expr, Func, Value};
use dataflow_protocol::shape::Shapes;
use dataflow_protocol::value::{CompositeId, Type};

/// How deep expressions may nest: evaluation recurses.
const MAX_DEPTH: usize = 128;

/// The type of `expr` over a row of `columns`.
///
/// # Errors
///
/// What is wrong with it, in words.
pub(crate) fn type_of(expr: &Expr, columns: &[Type], shapes: &Shapes) -> Result<Type, String> {
    at_depth(expr, columns, shapes, 0)
}

fn at_depth(expr: &Expr, columns: &[Type], shapes: &Shapes, depth: usize) -> Result<Type, String> {
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
            let types = args
                .iter()
                .map(|arg| at_depth(arg, columns, shapes, depth + 1))
                .collect::<Result<Vec<_>, _>>()?;
            match over {
                Type::Composite(id) => of_records(*func, *id, args, &types, shapes),
                _ => call(*func, *over, &types),
            }
        }
    }
}

const NUMERIC: &[Type] = &[Type::Number, Type::Unsigned, Type::Float];
const INTEGER: &[Type] = &[Type::Number, Type::Unsigned];
/// What there is a number in: its value, or its text.
const COUNTING: &[Type] =
    &[Type::Number, Type::Unsigned, Type::Float, Type::Symbol, Type::Bool, Type::Instant];
const ANY: &[Type] = &[
    Type::Number,
    Type::Unsigned,
    Type::Float,
    Type::Symbol,
    Type::Bool,
    Type::Instant,
    Type::Uuid,
    Type::Bytes,
];

/// The type of a call over a composite type.
fn of_records(
    func: Func,
    id: CompositeId,
    args: &[Expr],
    types: &[Type],
    shapes: &Shapes,
) -> Result<Type, String> {
    let over = Type::Composite(id);
    let composite = shapes.get(id).ok_or_else(|| format!("no type {} is defined", over.plan_name()))?;
    let number = |at: usize| match args.get(at) {
        Some(Expr::Const(Value::Unsigned(number))) => usize::try_from(*number).ok(),
        _ => None,
    };
    let branch = |at: usize| {
        let branch = number(at).and_then(|branch| composite.branches.get(branch));
        branch.ok_or_else(|| format!("{func:?} of {} without one of its branches", composite.name))
    };
    let misfit = || format!("{func:?} of {} has arguments that don't fit it", composite.name);
    match func {
        Func::Eq | Func::Ne if types == [over, over] => Ok(Type::Bool),
        Func::Nil if types.is_empty() && composite.record().is_some() => Ok(over),
        Func::Pack => {
            let fields = branch(0)?.fields.iter().map(|field| field.ty);
            if types[1..].iter().copied().eq(fields) { Ok(over) } else { Err(misfit()) }
        }
        Func::Unpack if types.len() == 3 && types[0] == over => {
            let field = number(2).and_then(|field| branch(1).ok()?.fields.get(field));
            field.map(|field| field.ty).ok_or_else(misfit)
        }
        Func::Is if types.len() == 2 && types[0] == over => branch(1).map(|_| Type::Bool),
        _ => Err(misfit()),
    }
}

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
        ToNumber => (COUNTING, 1..=1, Type::Number),
        ToUnsigned => (COUNTING, 1..=1, Type::Unsigned),
        ToFloat => (COUNTING, 1..=1, Type::Float),
        ToSymbol => (ANY, 1..=1, Type::Symbol),
        ToInstant => (&[Type::Number, Type::Symbol, Type::Instant][..], 1..=1, Type::Instant),
        ToUuid => (&[Type::Symbol, Type::Uuid][..], 1..=1, Type::Uuid),
        ToBytes => (&[Type::Symbol, Type::Uuid, Type::Bytes][..], 1..=1, Type::Bytes),
        InstantAdd | InstantSub => (&[Type::Instant][..], 2..=2, Type::Instant),
        InstantDiff => (&[Type::Instant][..], 2..=2, Type::Number),
        Nil | Pack | Unpack | Is => (&[][..], 0..=0, over),
    };
    if !overs.contains(&over) {
        return Err(format!("{func:?} is not defined over {}", over.name()));
    }
    if !arity.contains(&args.len()) {
        return Err(format!("{func:?} takes {} arguments, not {}", arity.start(), args.len()));
    }
    let expected = |index: usize| match func {
        Substr | InstantAdd | InstantSub if index > 0 => Type::Number,
        _ => over,
    };
    match args.iter().enumerate().find(|&(index, &ty)| ty != expected(index)) {
        Some((index, ty)) => {
            Err(format!("argument {index} of {func:?} is a {}, not a {}", ty.name(), expected(index).name()))
        }
        None => Ok(result),
    }
}

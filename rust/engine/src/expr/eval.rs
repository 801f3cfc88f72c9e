//! From plan expressions to something that runs.

use std::cell::Cell;
use std::rc::Rc;

use dataflow_protocol::dictionary::{self, Collision};
use dataflow_protocol::plan::{Expr, Func, Value};
use dataflow_protocol::value::{Type, Word, from_bool, from_float, from_number};
use smallvec::SmallVec;

use super::functions;
use super::totals::Total;
use crate::faults::Fault;
use crate::meter::Meter;

/// A compiled expression.
#[derive(Clone, Debug)]
pub(crate) enum Scalar {
    /// A column of the row.
    Col(usize),
    /// A constant.
    Const(Word),
    /// Two columns or constants compared as words; the hot filters.
    Compare(Func, Box<Scalar>, Box<Scalar>),
    /// A function of two arguments.
    Pair(Func, Type, Box<[Scalar; 2]>),
    /// Any other.
    Call(Func, Type, Vec<Scalar>),
    /// Panics, for tests.
    Fault(Fault),
    /// An aggregate read from running totals; its row is passed over where the group is empty.
    Total(Total),
}

/// The word of a constant.
///
/// # Errors
///
/// [`Collision`] from interning a symbol.
pub(crate) fn constant(value: &Value) -> Result<Word, Collision> {
    Ok(match value {
        Value::Number(number) => from_number(*number),
        Value::Unsigned(number) => *number,
        Value::Float(bits) => from_float(f64::from_bits(*bits)),
        Value::Symbol(text) => dictionary::announced(text.as_str())?,
        Value::Bool(truth) => from_bool(*truth),
    })
}

/// The value of a function of constants that makes a value which programs can't write otherwise, if it has one.
fn folded(func: Func, over: Type, args: &[Scalar]) -> Option<Word> {
    if !matches!(func, Func::ToInstant | Func::ToUuid | Func::ToBytes | Func::Nil | Func::Pack) {
        return None;
    }
    let constant = |arg: &Scalar| if let Scalar::Const(word) = arg { Some(*word) } else { None };
    let args: SmallVec<[Word; 4]> = args.iter().map(constant).collect::<Option<_>>()?;
    let folded = functions::apply(func, over, &args)?;
    // All processes compile the same plan before they meet a row of it.
    dictionary::announce_whole(folded);
    Some(folded)
}

impl Scalar {
    /// Compiles an expression that has a type; `column` says where each of its columns stands in the row at hand.
    ///
    /// # Errors
    ///
    /// [`Collision`] from interning a symbol.
    pub(crate) fn compile(expr: &Expr, column: &impl Fn(usize) -> usize) -> Result<Scalar, Collision> {
        Ok(match expr {
            Expr::Col(index) => Scalar::Col(column(*index)),
            Expr::Const(value) => Scalar::Const(constant(value)?),
            Expr::Call { func, over, args } => {
                let mut args =
                    args.iter().map(|arg| Scalar::compile(arg, column)).collect::<Result<Vec<_>, _>>()?;
                let ordered =
                    matches!(func, Func::Lt | Func::Le | Func::Gt | Func::Ge) && !over.ordered_by_bytes();
                if let Some(word) = folded(*func, *over, &args) {
                    return Ok(Scalar::Const(word));
                }
                match (args.pop(), args.pop()) {
                    (Some(right), Some(left))
                        if args.is_empty() && (ordered || matches!(func, Func::Eq | Func::Ne)) =>
                    {
                        Scalar::Compare(*func, Box::new(left), Box::new(right))
                    }
                    (Some(right), Some(left)) if args.is_empty() => {
                        Scalar::Pair(*func, *over, Box::new([left, right]))
                    }
                    (last, previous) => {
                        args.extend(previous);
                        args.extend(last);
                        Scalar::Call(*func, *over, args)
                    }
                }
            }
        })
    }

    /// The value over `row`; `None` if it fails.
    #[inline]
    pub(crate) fn eval(&self, row: &[Word]) -> Option<Word> {
        match self {
            Scalar::Col(index) => Some(row[*index]),
            Scalar::Const(word) => Some(*word),
            Scalar::Total(total) => total.eval(row),
            Scalar::Fault(fault) => fault.strike(),
            Scalar::Compare(func, left, right) => {
                let (left, right) = (left.eval(row)?, right.eval(row)?);
                Some(from_bool(match func {
                    Func::Eq => left == right,
                    Func::Ne => left != right,
                    Func::Lt => left < right,
                    Func::Le => left <= right,
                    Func::Gt => left > right,
                    _ => left >= right,
                }))
            }
            Scalar::Pair(func, over, args) => {
                functions::apply(*func, *over, &[args[0].eval(row)?, args[1].eval(row)?])
            }
            Scalar::Call(func, over, args) => {
                let args: SmallVec<[Word; 4]> =
                    args.iter().map(|arg| arg.eval(row)).collect::<Option<_>>()?;
                functions::apply(*func, *over, &args)
            }
        }
    }
}

/// Rows whose derivation failed, counted by a worker.
pub(crate) type Dropped = Rc<Cell<u64>>;

/// Filters and a projection, fused.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    filter: Vec<Scalar>,
    project: Vec<Scalar>,
    /// The projection, where it does nothing but pick columns.
    columns: Option<Vec<usize>>,
    dropped: Dropped,
}

impl Project {
    /// Compiles; see [`Scalar::compile`].
    ///
    /// # Errors
    ///
    /// [`Collision`] from interning a symbol.
    pub(crate) fn compile(
        filter: &[Expr],
        project: &[Expr],
        column: impl Fn(usize) -> usize,
        meter: &Meter,
    ) -> Result<Project, Collision> {
        let compile = |exprs: &[Expr]| {
            exprs.iter().map(|expr| Scalar::compile(expr, &column)).collect::<Result<Vec<_>, _>>()
        };
        let (mut filter, project) = (compile(filter)?, compile(project)?);
        if let Some(fault @ Fault::Expression) = meter.fault() {
            filter.push(Scalar::Fault(fault));
        }
        let dropped = Rc::clone(meter.dropped());
        Ok(Project { filter, dropped, ..Project::scalars(project) })
    }

    /// A projection that picks columns and filters nothing.
    pub(crate) fn columns(columns: Vec<usize>) -> Project {
        Project::scalars(columns.into_iter().map(Scalar::Col).collect())
    }

    /// A projection that filters nothing and whose failures aren't the program's.
    pub(crate) fn scalars(project: Vec<Scalar>) -> Project {
        let columns =
            project.iter().map(|scalar| if let Scalar::Col(index) = scalar { Some(*index) } else { None });
        Project { columns: columns.collect(), filter: Vec::new(), project, dropped: Dropped::default() }
    }

    /// Whether it is the identity on rows of `width` words.
    pub(crate) fn is_identity(&self, width: usize) -> bool {
        self.filter.is_empty()
            && self.columns.as_ref().is_some_and(|columns| columns.iter().copied().eq(0..width))
    }

    /// Words of an output row.
    pub(crate) fn width(&self) -> usize {
        self.project.len()
    }

    /// Appends the output row for `row`; `false` if there is none (what was appended is to be cut off).
    #[inline]
    pub(crate) fn apply(&self, row: &[Word], target: &mut Vec<Word>) -> bool {
        for filter in &self.filter {
            match filter.eval(row) {
                Some(0) => return false,
                Some(_) => {}
                None => return self.fail(),
            }
        }
        if let Some(columns) = &self.columns {
            target.extend(columns.iter().map(|&index| row[index]));
            return true;
        }
        for scalar in &self.project {
            match scalar.eval(row) {
                Some(word) => target.push(word),
                None => return self.fail(),
            }
        }
        true
    }

    /// Counts a row whose derivation failed.
    #[cold]
    pub(crate) fn fail(&self) -> bool {
        self.dropped.set(self.dropped.get() + 1);
        false
    }
}

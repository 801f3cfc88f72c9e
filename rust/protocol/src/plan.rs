//! The plan: the typed, versioned document that a compiled program is.
//!
//! Python's planner writes it as JSON, every worker validates it completely against its catalog (the engine's
//! `validate` room) and builds the same dataflow from it. Nodes form a list in which a node refers to earlier ones
//! only, by index. Columns of a node are counted from 0; a join's output expressions count the left input's columns
//! first, then the right's.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::RelationId;
use crate::shape::{Composite, Shapes};
use crate::value::{Column, Type};

/// The version of the document this build reads and writes.
pub const VERSION: u32 = 1;

/// The relation of the cluster's clock, which no program declares: one row with the present instant. It is imported by
/// whoever reads it.
pub const CLOCK: RelationId = RelationId(0);

/// A compiled program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the module.
    pub name: String,
    /// Digest of the canonical program; equal digests are the same program.
    pub digest: String,
    /// Relations of earlier programs that this one uses.
    pub imports: Vec<Import>,
    /// Record types and algebraic types that columns and expressions have, and those that stand in them.
    #[serde(default)]
    pub types: Vec<Composite>,
    /// Relations that this program declares, by local index.
    pub relations: Vec<Relation>,
    /// Operators, each referring to earlier ones only.
    pub nodes: Vec<Node>,
    /// Groups of mutually dependent relations in an order of evaluation; every derived relation stands in exactly
    /// one, as does an input relation that has facts or rules.
    pub strata: Vec<Stratum>,
    /// The rules of the program, for people.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// For each node the rules that it is there for, by index; empty, or as long as `nodes`.
    #[serde(default)]
    pub causes: Vec<Vec<usize>>,
    /// Whether relations are worked out once, from what the imports hold when the program is registered, and stay as they
    /// are when the imports change. Such a program has no inputs and doesn't read the clock.
    #[serde(default)]
    pub frozen: bool,
}

/// A rule as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its text, shortened where it is long.
    pub text: String,
    /// The line on which it begins, counted from 1.
    pub line: u32,
    /// The column in which it begins, counted from 1.
    pub column: u32,
}

impl Plan {
    /// Whether the program depends on the cluster's clock.
    pub fn reads_clock(&self) -> bool {
        self.imports.iter().any(|import| import.relation == CLOCK)
    }

    /// The columns of a relation with what their types are.
    pub fn shaped(&self, columns: &[Column]) -> Vec<Column> {
        let shapes = Arc::new(Shapes::new(&self.types));
        let shaped = |column: &Column| Column {
            shapes: matches!(column.ty, Type::Composite(_)).then(|| Arc::clone(&shapes)),
            ..column.clone()
        };
        columns.iter().map(shaped).collect()
    }
}

/// A relation of an earlier program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// The relation the program was planned against; a plan whose imports are gone is planned anew.
    pub relation: RelationId,
    /// Its name.
    pub name: String,
    /// Its columns' types.
    pub types: Vec<Type>,
}

/// A relation that the program declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    /// Name as declared.
    pub name: String,
    /// Columns as declared.
    pub columns: Vec<Column>,
    /// Present iff clients may transact into it.
    pub input: Option<InputMode>,
    /// Marked `.output`.
    #[serde(default)]
    pub output: bool,
}

/// What inserts and deletes mean in an input relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum InputMode {
    /// A set of rows.
    Set,
    /// A multiset: copies add up.
    Raw,
    /// At most one row for the values of these columns; the last write wins.
    Upsert(Vec<usize>),
}

/// Where a node's rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelationRef {
    /// A relation that the program declares, by index in [`Plan::relations`].
    Local(usize),
    /// A relation of an earlier program, by index in [`Plan::imports`].
    Import(usize),
}

/// An operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Node {
    /// The rows of a relation.
    Get {
        /// Which.
        relation: RelationRef,
    },
    /// Constant rows. `types` also gives the width of an empty list.
    Rows {
        /// Columns' types.
        types: Vec<Type>,
        /// The rows.
        rows: Vec<Vec<Value>>,
    },
    /// Rows that pass every filter, projected; one output row an input row (a bag: duplicates are kept).
    Map {
        /// Input node.
        input: usize,
        /// Expressions of type `bool`; all must hold.
        filter: Vec<Expr>,
        /// Output columns.
        project: Vec<Expr>,
    },
    /// Rows with a further column that runs through a range: a row for each value from `start` on, before `stop`. A row
    /// of more than 2^20 values drops, as with an expression that fails.
    Range {
        /// Input node.
        input: usize,
        /// The type of the column: `number`, `unsigned` or `float`.
        over: Type,
        /// The first value.
        start: Expr,
        /// The end, which isn't part of the range; equal to `start`, it makes the range empty.
        stop: Expr,
        /// From value to value. One that leads away from `stop` gives no values, one of 0 the first alone; absent, it
        /// is 1 or -1.
        step: Option<Expr>,
    },
    /// Rows while the clock shows a time of theirs, in µs since 1970: none of `since` is later, all of `until` are. Not
    /// inside a recursion; the program must import [`CLOCK`].
    Window {
        /// Input node.
        input: usize,
        /// Expressions of type `number`.
        since: Vec<Expr>,
        /// Expressions of type `number`.
        until: Vec<Expr>,
    },
    /// Pairs of rows with equal keys that pass every filter, projected.
    Join {
        /// Left input node.
        left: usize,
        /// Right input node.
        right: usize,
        /// Key columns of the left input; an empty key makes a cross product.
        left_key: Vec<usize>,
        /// Key columns of the right input, as many.
        right_key: Vec<usize>,
        /// Expressions of type `bool` over left columns, then right ones.
        filter: Vec<Expr>,
        /// Output columns, over left columns, then right ones.
        project: Vec<Expr>,
    },
    /// Values of variables for which every input has a row, that pass every filter, projected; as many as there are
    /// combinations of such rows. Each change of an input is looked up in the others, and nothing that is found on the
    /// way is kept. Not inside a recursion.
    Multijoin {
        /// Input nodes.
        inputs: Vec<usize>,
        /// For each input the variable that each of its columns is, counted from 0; different ones.
        variables: Vec<Vec<usize>>,
        /// For each input the order in which its changes meet the others: groups of inputs (their places in `inputs`) that
        /// lack the same variables when their turn comes. Of a group the input with the fewest values proposes them.
        paths: Vec<Vec<Vec<usize>>>,
        /// Expressions of type `bool` over the variables.
        filter: Vec<Expr>,
        /// Output columns, over the variables.
        project: Vec<Expr>,
    },
    /// Left rows for whose key the right input has no row.
    Antijoin {
        /// Left input node.
        left: usize,
        /// Right input node.
        right: usize,
        /// Key columns of the left input.
        left_key: Vec<usize>,
        /// Key columns of the right input, as many.
        right_key: Vec<usize>,
    },
    /// All rows of all inputs (a bag).
    Union {
        /// Input nodes of equal types, at least one.
        inputs: Vec<usize>,
    },
    /// Each row once.
    Distinct {
        /// Input node.
        input: usize,
    },
    /// One row a key that has rows: the key's columns, then one column an aggregate.
    Reduce {
        /// Input node.
        input: usize,
        /// Key columns.
        key: Vec<usize>,
        /// What to compute.
        aggregates: Vec<Aggregate>,
    },
}

/// An aggregate over the rows of one key, duplicates counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// Which.
    pub func: AggregateFunc,
    /// The column it is taken of; absent for `count`.
    pub column: Option<usize>,
}

/// Aggregate functions. `count` gives a number; `mean` a float; the others the type of their column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AggregateFunc {
    /// Number of rows.
    Count,
    /// Sum of a `number` or `unsigned` (wrapping at 64 bits) or `float` column.
    Sum,
    /// Least value of a column, symbols by their bytes.
    Min,
    /// Greatest value of a column, symbols by their bytes.
    Max,
    /// Arithmetic mean of a `number`, `unsigned` or `float` column.
    Mean,
}

/// Mutually dependent relations, or one that depends on earlier strata only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stratum {
    /// Whether the relations depend on themselves or one another.
    pub recursive: bool,
    /// The relations and what defines each.
    pub relations: Vec<Definition>,
}

/// What a relation is besides its transacted rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Local index of the relation.
    pub relation: usize,
    /// Node whose rows, made distinct, are the relation's; united with the transacted rows of an input.
    pub node: usize,
}

/// An expression over a row. One that fails (division by zero, a conversion that isn't possible) drops the row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Expr {
    /// A column of the row.
    Col(usize),
    /// A constant.
    Const(Value),
    /// A function applied to arguments.
    Call {
        /// Which.
        func: Func,
        /// The type the function is taken at: that of its arguments where they have one type in common
        /// (`add`, `lt`, `cat`, …), that of its single argument for conversions.
        over: Type,
        /// Arguments.
        args: Vec<Expr>,
    },
}

/// A typed constant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Value {
    /// A `number`.
    Number(i64),
    /// An `unsigned`.
    Unsigned(u64),
    /// A `float`: its bits as an unsigned integer, since JSON has no NaN.
    Float(u64),
    /// A `symbol`.
    Symbol(String),
    /// A `bool`.
    Bool(bool),
}

impl Value {
    /// The constant's type.
    pub fn ty(&self) -> Type {
        match self {
            Value::Number(_) => Type::Number,
            Value::Unsigned(_) => Type::Unsigned,
            Value::Float(_) => Type::Float,
            Value::Symbol(_) => Type::Symbol,
            Value::Bool(_) => Type::Bool,
        }
    }
}

/// Functions of expressions. Integer arithmetic wraps at 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Func {
    /// Equal; any type, gives a `bool`.
    Eq,
    /// Different; any type, gives a `bool`.
    Ne,
    /// Less; any type (symbols, uuids and bytes by their bytes), gives a `bool`.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Both; `bool`.
    And,
    /// Either; `bool`.
    Or,
    /// Opposite; `bool`.
    Not,
    /// Sum; number, unsigned, float.
    Add,
    /// Difference; number, unsigned, float.
    Sub,
    /// Product; number, unsigned, float.
    Mul,
    /// Quotient; number and unsigned fail on zero.
    Div,
    /// Remainder; number and unsigned, fails on zero.
    Mod,
    /// Power; number, unsigned, float; a negative integer exponent fails.
    Pow,
    /// Opposite sign; number, float.
    Neg,
    /// Least of two or more; any type (symbols by their bytes).
    Min,
    /// Greatest of two or more; any type.
    Max,
    /// Bitwise and; number, unsigned.
    Band,
    /// Bitwise or; number, unsigned.
    Bor,
    /// Bitwise exclusive or; number, unsigned.
    Bxor,
    /// Bitwise complement; number, unsigned.
    Bnot,
    /// Shift left by the second argument modulo 64; number, unsigned.
    Bshl,
    /// Shift right, keeping the sign of a number; number, unsigned.
    Bshr,
    /// Shift right, filling with zeros; number, unsigned.
    Bshru,
    /// Logical and of integers (0 is false), giving 0 or 1; number, unsigned.
    Land,
    /// Logical or of integers; number, unsigned.
    Lor,
    /// Logical exclusive or of integers; number, unsigned.
    Lxor,
    /// Logical not of an integer; number, unsigned.
    Lnot,
    /// Concatenation of two or more symbols.
    Cat,
    /// Length of a symbol in bytes, a number.
    Strlen,
    /// Part of a symbol: `substr(text, start, length)`, both numbers counted in bytes; fails outside the text or
    /// inside a character.
    Substr,
    /// Whether the first symbol occurs in the second; gives a `bool`.
    Contains,
    /// Whether the first symbol, a regular expression, matches all of the second; gives a `bool`.
    Match,
    /// Conversion of `over` to a number; a symbol that isn't one fails, a float is cut towards zero.
    ToNumber,
    /// Conversion of `over` to an unsigned.
    ToUnsigned,
    /// Conversion of `over` to a float.
    ToFloat,
    /// Conversion of `over` to a symbol.
    ToSymbol,
    /// Conversion of a number (µs since 1970) or a symbol (RFC 3339) to an instant; fails for what is none.
    ToInstant,
    /// Conversion of a symbol to a uuid; fails for what is none.
    ToUuid,
    /// Conversion of a symbol (base64) or a uuid to bytes; fails for what is none.
    ToBytes,
    /// An instant some µs later; fails beyond the last instant.
    InstantAdd,
    /// An instant some µs earlier; fails beyond the first instant.
    InstantSub,
    /// The µs from the second instant to the first, a number.
    InstantDiff,
    /// The record that is nothing; no arguments.
    Nil,
    /// A record, or a value of an algebraic type: the branch (an unsigned constant, 0 for a record), then the fields.
    /// Fails if it would be larger than any may be.
    Pack,
    /// A field of the first argument: of which branch, and which one, are unsigned constants. Fails for a
    /// value of another branch, and for nil.
    Unpack,
    /// Whether the first argument is of a branch, an unsigned constant; nil is of none. Gives a `bool`.
    Is,
}

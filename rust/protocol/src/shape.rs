//! What records and algebraic types hold.
//!
//! A value of such a type is one word, like any other: 0 for the record that is `nil`, else that of a dictionary's
//! entry, which has the number of its branch (0 for a record) and then a word for each field. What the words mean is
//! known by the column's type alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::value::{Column, CompositeId, Type};

/// How deep records may stand in one another. Reading and writing them recurses.
pub const MAX_DEPTH: usize = 100;
/// How many bytes a record may hold, all that stands in it included.
pub const MAX_BYTES: usize = 1 << 20;

/// A record type, or an algebraic one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Composite {
    /// Equal for equal definitions.
    pub id: CompositeId,
    /// As declared.
    pub name: String,
    /// One with a name for each branch of an algebraic type; a record type has one without.
    pub branches: Vec<Branch>,
}

/// A way to make a value of an algebraic type, or the way to make a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// As declared; absent for a record.
    pub name: Option<String>,
    /// What it holds.
    pub fields: Vec<Column>,
}

impl Composite {
    /// The record's fields, if it is a record type.
    pub fn record(&self) -> Option<&[Column]> {
        match &self.branches[..] {
            [Branch { name: None, fields }] => Some(fields),
            _ => None,
        }
    }
}

/// The definitions that a column's type leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shapes(BTreeMap<CompositeId, Composite>);

impl Shapes {
    /// Of all these types.
    pub fn new(types: &[Composite]) -> Self {
        Shapes(types.iter().map(|composite| (composite.id, composite.clone())).collect())
    }

    /// The definition of a type.
    pub fn get(&self, id: CompositeId) -> Option<&Composite> {
        self.0.get(&id)
    }

    /// The name of a type as declared.
    pub fn name(&self, ty: Type) -> &str {
        match ty {
            Type::Composite(id) => self.get(id).map_or("record", |composite| &composite.name),
            simple => simple.name(),
        }
    }
}

/// A definition as clients are told of it: types go by their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Described {
    /// The fields of a record.
    Record(Vec<Field>),
    /// The fields of each branch of an algebraic type.
    Branches(BTreeMap<String, Vec<Field>>),
}

/// A field as clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    name: String,
    #[serde(rename = "type")]
    ty: String,
}

/// The definitions that the types of `columns` lead to, by name.
pub fn described<'a>(columns: impl IntoIterator<Item = &'a Column>) -> BTreeMap<String, Described> {
    let mut found = BTreeMap::new();
    for column in columns {
        let (Type::Composite(root), Some(shapes)) = (column.ty, &column.shapes) else { continue };
        let (mut seen, mut pending) = (BTreeSet::from([root]), vec![root]);
        while let Some(composite) = pending.pop().and_then(|id| shapes.get(id)) {
            for field in composite.branches.iter().flat_map(|branch| &branch.fields) {
                if let Type::Composite(id) = field.ty
                    && seen.insert(id)
                {
                    pending.push(id);
                }
            }
            found.insert(composite.name.clone(), describe(composite, shapes));
        }
    }
    found
}

fn describe(composite: &Composite, shapes: &Shapes) -> Described {
    let fields = |fields: &[Column]| {
        let field = |field: &Column| Field { name: field.name.clone(), ty: shapes.name(field.ty).to_owned() };
        fields.iter().map(field).collect()
    };
    match composite.record() {
        Some(record) => Described::Record(fields(record)),
        None => {
            let branch = |branch: &Branch| (branch.name.clone().unwrap_or_default(), fields(&branch.fields));
            Described::Branches(composite.branches.iter().map(branch).collect())
        }
    }
}

//! Columns, from what clients are told of them: types go by their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::TableError;
use crate::shape::{Branch, Composite, Shapes};
use crate::value::{Column, CompositeId, Type};

/// A column, or a field of a record.
#[derive(Deserialize)]
struct Described {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    #[serde(default)]
    types: Option<BTreeMap<String, Definition>>,
}

/// What a value of a defined type holds.
#[derive(Deserialize)]
struct Definition {
    #[serde(default)]
    record: Option<Vec<Described>>,
    #[serde(default)]
    branches: Option<BTreeMap<String, Vec<Described>>>,
}

/// The columns of a JSON text.
pub(super) fn columns(json: &str) -> Result<Vec<Column>, TableError> {
    let described: Vec<Described> = serde_json::from_str(json).map_err(TableError::Columns)?;
    described.iter().map(column).collect()
}

fn column(described: &Described) -> Result<Column, TableError> {
    let Some(types) = &described.types else { return field(described, &BTreeMap::new()) };
    // They are known by their numbers here, as nobody has told their digests.
    let numbers: BTreeMap<&str, CompositeId> =
        (0..).zip(types.keys()).map(|(number, name)| (name.as_str(), CompositeId(number))).collect();
    let composites = types.iter().map(|(name, definition)| {
        let fields = |fields: &[Described]| {
            fields.iter().map(|each| field(each, &numbers)).collect::<Result<Vec<_>, _>>()
        };
        let branches = match (&definition.record, &definition.branches) {
            (Some(record), _) => vec![Branch { name: None, fields: fields(record)? }],
            // By name, as values of different branches are in the order of their names.
            (None, Some(branches)) => {
                let branch = |(name, held): (&String, &Vec<Described>)| {
                    Ok(Branch { name: Some(name.clone()), fields: fields(held)? })
                };
                branches.iter().map(branch).collect::<Result<_, TableError>>()?
            }
            (None, None) => Vec::new(),
        };
        let id = numbers.get(name.as_str()).copied().unwrap_or(CompositeId(0));
        Ok(Composite { id, name: name.clone(), branches })
    });
    let shapes = Shapes::new(&composites.collect::<Result<Vec<_>, TableError>>()?);
    Ok(Column { shapes: Some(Arc::new(shapes)), ..field(described, &numbers)? })
}

fn field(described: &Described, numbers: &BTreeMap<&str, CompositeId>) -> Result<Column, TableError> {
    let name = described.ty.as_str();
    let ty = numbers.get(name).map(|&id| Type::Composite(id)).or_else(|| Type::simple(name));
    let ty = ty.ok_or_else(|| TableError::UnknownType(name.to_owned()))?;
    Ok(Column::new(described.name.clone(), ty))
}

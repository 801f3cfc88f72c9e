//! The catalog as sessions need it: names to typed columns, kept in step with the engine's.

use std::collections::HashMap;
use std::sync::Arc;

use dataflow_engine::RelationInfo;
use dataflow_protocol::ids::RelationId;
use dataflow_protocol::nearest::nearest;
use dataflow_protocol::request::{Schema, Schemas};
use dataflow_protocol::value::Column;
use serde::Serialize;

/// Relations by name and by id. Changes only while sequenced commands are applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    names: HashMap<String, Arc<Schema>>,
    ids: HashMap<RelationId, Arc<Schema>>,
    version: u64,
}

impl Catalog {
    /// Takes note of a new module's relations; returns the catalog's new version.
    pub(crate) fn add(&mut self, relations: &[Arc<RelationInfo>]) -> u64 {
        for relation in relations {
            let schema = Arc::new(Schema {
                id: relation.id,
                name: relation.name.clone(),
                columns: relation.columns.clone(),
                input: relation.input.is_some(),
            });
            self.names.insert(relation.name.clone(), Arc::clone(&schema));
            self.ids.insert(relation.id, schema);
        }
        self.version += 1;
        self.version
    }

    /// Forgets relations; returns the catalog's new version.
    pub(crate) fn remove(&mut self, relations: &[RelationId]) -> u64 {
        for id in relations {
            if let Some(schema) = self.ids.remove(id) {
                self.names.remove(&schema.name);
            }
        }
        self.version += 1;
        self.version
    }

    /// The names of all relations.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    pub(crate) fn contains(&self, relation: RelationId) -> bool {
        self.ids.contains_key(&relation)
    }
}

impl Schemas for Catalog {
    fn schema(&self, relation: &str) -> Option<Arc<Schema>> {
        self.names.get(relation).map(Arc::clone)
    }

    fn nearest(&self, relation: &str) -> Option<String> {
        nearest(relation, self.names.keys().map(String::as_str)).map(str::to_owned)
    }
}

/// A relation as clients are told of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RelationReply {
    name: String,
    kind: &'static str,
    columns: Vec<Column>,
}

impl RelationReply {
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(crate) fn new(relation: &RelationInfo) -> Self {
        RelationReply {
            name: relation.name.clone(),
            kind: if relation.input.is_some() { "input" } else { "derived" },
            columns: relation.columns.clone(),
        }
    }
}

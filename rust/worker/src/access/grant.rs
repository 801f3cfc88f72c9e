//! What one client may do, asked while its requests are decoded.

use std::sync::Arc;

use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::nearest::nearest;
use dataflow_protocol::request::{Op, Schema, Schemas};

use super::rules::{Digest, Role};
use super::token_needed;
use crate::catalog::Catalog;

/// What a client may do.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// The token it has this from; none where none is needed.
    pub(super) digest: Option<Digest>,
    pub(super) role: Role,
    /// To which relations; `None` for all.
    pub(super) relations: Option<Vec<String>>,
}

/// The role that an op needs; `None` for what everybody may ask who has been let in.
fn role_for(op: Op) -> Option<Role> {
    match op {
        Op::Hello | Op::Ping => None,
        Op::Subscribe | Op::Unsubscribe | Op::Read | Op::Explain | Op::Status => Some(Role::Reader),
        Op::Register | Op::Unregister | Op::Cancel | Op::Transact => Some(Role::Writer),
        Op::Attach | Op::Detach | Op::Advance | Op::Tune | Op::Shutdown => Some(Role::Admin),
    }
}

/// Whether an op is beyond a token for some relations: programs and plans may name any relation, and the rest is about
/// the cluster as a whole.
fn is_for_all_relations(op: Op) -> bool {
    match op {
        Op::Register
        | Op::Unregister
        | Op::Cancel
        | Op::Explain
        | Op::Attach
        | Op::Detach
        | Op::Advance
        | Op::Tune
        | Op::Shutdown => true,
        Op::Hello | Op::Ping | Op::Subscribe | Op::Unsubscribe | Op::Read | Op::Status | Op::Transact => {
            false
        }
    }
}

impl Grant {
    /// What everybody may do where no token is needed.
    pub(crate) fn everything() -> Self {
        Grant { digest: None, role: Role::Admin, relations: None }
    }

    /// Whether it is good for an op, relations aside.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub(crate) fn may(&self, op: Op) -> Result<(), ErrorBody> {
        let forbidden = |message| Err(ErrorBody::new(ErrorCode::Forbidden, message));
        if let Some(needed) = role_for(op).filter(|&needed| needed > self.role) {
            let (op, role, needed) = (op.name(), self.role.name(), needed.name());
            return forbidden(format!("`{op}` needs the role {needed}, and this token's is {role}"));
        }
        if self.relations.is_some() && is_for_all_relations(op) {
            let op = op.name();
            return forbidden(format!("`{op}` needs a token for all relations, and this one is for some"));
        }
        Ok(())
    }

    /// Whether it is good for an op that shows all relations.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub(crate) fn for_everything(&self, op: Op) -> Result<(), ErrorBody> {
        self.may(op)?;
        match self.relations {
            Some(_) => Err(ErrorBody::new(ErrorCode::Forbidden, "that needs a token for all relations")),
            None => Ok(()),
        }
    }

    /// Whether it is good for a relation.
    pub(crate) fn reaches(&self, relation: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => relation.starts_with(beginning),
            None => pattern == relation,
        };
        self.relations.as_ref().is_none_or(|patterns| patterns.iter().any(fits))
    }
}

/// The catalog as a client may see it; nothing of it, and no op but `hello`, without a grant.
pub(crate) struct View<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) grant: Option<&'a Grant>,
    /// Rows that a transaction may have.
    pub(crate) rows: usize,
}

impl Schemas for View<'_> {
    fn schema(&self, relation: &str) -> Option<Arc<Schema>> {
        self.grant.filter(|grant| grant.reaches(relation)).and_then(|_| self.catalog.schema(relation))
    }

    fn nearest(&self, relation: &str) -> Option<String> {
        let grant = self.grant?;
        nearest(relation, self.catalog.names().filter(|name| grant.reaches(name))).map(str::to_owned)
    }

    fn transaction_rows(&self) -> usize {
        self.rows
    }

    fn permit(&self, op: Op) -> Result<(), ErrorBody> {
        match self.grant {
            Some(grant) => grant.may(op),
            None if op == Op::Hello => Ok(()),
            None => Err(token_needed()),
        }
    }

    fn permit_relation(&self, op: Op, relation: &str) -> Result<(), ErrorBody> {
        if self.grant.is_some_and(|grant| grant.reaches(relation)) {
            return Ok(());
        }
        let message = format!("this token allows no `{}` of relation `{relation}`", op.name());
        Err(ErrorBody::new(ErrorCode::Forbidden, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role, relations: Option<&[&str]>) -> Grant {
        let relations = relations.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        Grant { digest: None, role, relations }
    }

    #[test]
    fn roles_contain_one_another() {
        let needs = [
            (Op::Ping, Role::Reader),
            (Op::Read, Role::Reader),
            (Op::Status, Role::Reader),
            (Op::Transact, Role::Writer),
            (Op::Register, Role::Writer),
            (Op::Unregister, Role::Writer),
            (Op::Attach, Role::Admin),
            (Op::Detach, Role::Admin),
            (Op::Cancel, Role::Writer),
            (Op::Advance, Role::Admin),
            (Op::Tune, Role::Admin),
            (Op::Shutdown, Role::Admin),
        ];
        for (op, needed) in needs {
            for role in [Role::Reader, Role::Writer, Role::Admin] {
                assert_eq!(grant(role, None).may(op).is_ok(), role >= needed, "{op:?} by {role:?}");
            }
        }
    }

    #[test]
    fn a_grant_for_some_relations_reaches_these_and_nothing_that_names_others() {
        let some = grant(Role::Admin, Some(&["one", "net.*"]));
        for (relation, reached) in
            [("one", true), ("one2", false), ("net.x", true), ("net", false), ("", false)]
        {
            assert_eq!(some.reaches(relation), reached, "{relation}");
        }
        assert!(some.may(Op::Transact).is_ok() && some.may(Op::Subscribe).is_ok());
        let cluster = [Op::Attach, Op::Detach, Op::Advance, Op::Tune, Op::Shutdown];
        for op in [Op::Register, Op::Unregister, Op::Cancel, Op::Explain].into_iter().chain(cluster) {
            assert!(some.may(op).is_err(), "{op:?}");
        }
        assert!(grant(Role::Reader, Some(&[])).reaches("x").eq(&false));
        assert!(grant(Role::Reader, None).reaches("x"));
    }
}

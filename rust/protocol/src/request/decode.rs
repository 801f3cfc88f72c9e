//! The message as a whole: its id, its op, its fields.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::cells::Cell;
use super::changes::{Changes, Where};
use super::context::{Context, unknown_column};
use super::fields::{Document, Field, FieldSeed, Op, SettingSeed};
use super::skim::Skim;
use super::source::{self, Failure, Here, Kept, Raw, RawSeed, Slot};
use super::{
    Change, Decoded, Filter, QueryLimits, Rejected, Request, RequestId, Schema, Schemas, Setting, Since,
    Slow, Subscribe, VERSION, Wait,
};
use crate::dictionary::sweep::Pin;
use crate::encoding::Encoding;
use crate::error::{ErrorBody, ErrorCode};
use crate::nearest::nearest;
use crate::order::{By, Ranking};
use crate::value::{Column, Type, Word, to_number};

pub(super) fn decode(
    bytes: &[u8],
    encoding: Encoding,
    schemas: &dyn Schemas,
) -> Result<Decoded, Box<Rejected>> {
    let pin = Pin::new();
    let mut context = Context::new(encoding, schemas);
    match source::parse(bytes, encoding, Whole(&mut context)) {
        Ok((id, request)) => Ok(Decoded { id, request, contents: context.contents, pin }),
        Err(failure) => {
            let (id, error) = reject(bytes, &mut context, &failure);
            Err(Box::new(Rejected { id, error, contents: context.contents }))
        }
    }
}

/// Goes over the message once more: is it well-formed as a whole, and what is its id?
fn reject(bytes: &[u8], context: &mut Context<'_>, failure: &Failure) -> (RequestId, ErrorBody) {
    match source::parse(bytes, context.encoding, Skim(context.encoding)) {
        Ok(id) => (id, context.explain(bytes, failure)),
        Err(malformed) => {
            let name = match context.encoding {
                Encoding::Json => "JSON",
                Encoding::MessagePack => "MessagePack",
            };
            let place = malformed.place.unwrap_or_default();
            (RequestId::NULL, ErrorBody::incorrect(format!("malformed {name}: {}{place}", malformed.what)))
        }
    }
}

/// Seed of a request.
struct Whole<'c, 's>(&'c mut Context<'s>);

impl<'de> DeserializeSeed<'de> for Whole<'_, '_> {
    type Value = (RequestId, Request);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_, '_> {
    type Value = (RequestId, Request);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a request: an object with `id`, `op` and the op's fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let context = self.0;
        let mut id = None;
        let mut op = None;
        let mut draft = Draft::default();
        // Fields that come before the op cannot be understood yet.
        let mut early: Vec<(Field, Raw<'de>)> = Vec::new();
        while let Some(name) = map.next_key_seed(FieldSeed)? {
            match (name, op) {
                (Field::Id, _) if id.is_none() => {
                    id = Some(RequestId::from_raw(map.next_value_seed(RawSeed(context.encoding))?.bytes()));
                }
                (Field::Op, None) => {
                    context.field = Some(Field::Op);
                    let known = named_op(context, &map.next_value::<Cow<'de, str>>()?)?;
                    context.schemas.permit(known).map_err(|body| context.refuse(body))?;
                    context.op = Some(known);
                    op = Some(known);
                    for (name, raw) in early.drain(..) {
                        draft.field(context, known, name, Kept(raw, PhantomData::<A::Error>))?;
                    }
                }
                (name @ (Field::Id | Field::Op), _) => return Err(duplicate(context, &name)),
                (name, Some(op)) => draft.field(context, op, name, Here(&mut map))?,
                (name, None) => early.push((name, map.next_value_seed(RawSeed(context.encoding))?)),
            }
        }
        let Some(op) = op else {
            return Err(context.refuse(missing("op", None)));
        };
        let request = draft.build(context, op)?;
        Ok((id.unwrap_or_default(), request))
    }
}

fn named_op<E: de::Error>(context: &mut Context<'_>, name: &str) -> Result<Op, E> {
    Op::named(name).ok_or_else(|| {
        let hint = nearest(name, Op::names()).map(|near| format!("Did you mean `{near}`?"));
        context.refuse(ErrorBody::incorrect(format!("unknown op `{name}`")).with_hint(hint))
    })
}

fn duplicate<E: de::Error>(context: &mut Context<'_>, name: &Field) -> E {
    context.refuse(ErrorBody::incorrect(format!("duplicate field `{}`", name.text())))
}

fn missing(field: &str, op: Option<Op>) -> ErrorBody {
    let of = op.map_or_else(String::new, |op| format!(" of op `{}`", op.name()));
    ErrorBody::incorrect(format!("missing field `{field}`{of}"))
}

/// The fields met so far; which of them belong to the op has been checked.
#[derive(Default)]
struct Draft<'de> {
    /// A bit for each of the known names.
    seen: u32,
    version: Option<u64>,
    token: Option<String>,
    program: Option<String>,
    name: Option<String>,
    changes: Option<Vec<Change>>,
    key: Option<String>,
    wait: Option<Wait>,
    relation: Option<Arc<Schema>>,
    snapshot: Option<bool>,
    progress: Option<bool>,
    filter: Filter,
    /// A `where` that came before its `relation`.
    early_filter: Option<Raw<'de>>,
    since: Option<u64>,
    history: Option<String>,
    slow: Option<Slow>,
    backlog: Option<u64>,
    sub: Option<u64>,
    /// Names of columns, as they came.
    order: Option<Vec<String>>,
    limit: Option<u64>,
    limits: Option<QueryLimits>,
    analyze: Option<bool>,
    settings: Vec<(String, Setting)>,
    source: Option<String>,
    now: Option<Word>,
}

impl<'de> Draft<'de> {
    fn field<S: Slot<'de>>(
        &mut self,
        context: &mut Context<'_>,
        op: Op,
        name: Field,
        slot: S,
    ) -> Result<(), S::Error> {
        if op != Op::Tune && !op.fields().contains(&name) {
            return Err(context.refuse(unknown_field(op, &name)));
        }
        let seen = self.seen;
        self.seen |= name.bit().unwrap_or(0);
        let again = match name.bit() {
            Some(bit) => seen & bit != 0,
            None => self.settings.iter().any(|(known, _)| known == name.text()),
        };
        if again {
            return Err(duplicate(context, &name));
        }
        context.field = Some(name.clone());
        if op == Op::Tune {
            self.settings.push((name.text().to_owned(), slot.read(SettingSeed)?));
            return Ok(());
        }
        self.read(context, &name, slot)
    }

    fn read<S: Slot<'de>>(
        &mut self,
        context: &mut Context<'_>,
        name: &Field,
        slot: S,
    ) -> Result<(), S::Error> {
        match name {
            Field::Version => self.version = slot.read(plain())?,
            Field::Token => self.token = slot.read(plain())?,
            Field::Program => self.program = slot.read(plain())?,
            Field::Name => self.name = slot.read(plain())?,
            Field::Changes => self.changes = Some(slot.read(Changes(context))?),
            Field::Key => self.key = slot.read(plain())?,
            Field::Wait => {
                let words = [("sequenced", Wait::Sequenced), ("visible", Wait::Visible)];
                self.wait = chosen(context, "wait", slot.read(plain())?, words)?;
            }
            Field::Relation => {
                let name: Option<Cow<'de, str>> = slot.read(plain())?;
                self.relation = name.map(|name| context.relation(&name)).transpose()?;
            }
            Field::Snapshot => self.snapshot = slot.read(plain())?,
            Field::Progress => self.progress = slot.read(plain())?,
            Field::Where => match &self.relation {
                Some(relation) => self.filter = slot.read(Where { context, relation })?,
                None => self.early_filter = Some(slot.read(RawSeed(context.encoding))?),
            },
            Field::Since => self.since = slot.read(plain())?,
            Field::History => self.history = slot.read(plain())?,
            Field::Slow => {
                let words = [("coalesce", Slow::Coalesce), ("end", Slow::End)];
                self.slow = chosen(context, "slow", slot.read(plain())?, words)?;
            }
            Field::Backlog => self.backlog = slot.read(plain())?,
            Field::Sub => self.sub = slot.read(plain())?,
            Field::Order => self.order = slot.read(plain())?,
            Field::Limit => self.limit = slot.read(plain())?,
            Field::Source => self.source = Some(slot.read(Document)?),
            Field::Limits => self.limits = slot.read(plain())?,
            Field::Analyze => self.analyze = slot.read(plain())?,
            Field::Now => {
                let instant = Column::new("now", Type::Instant);
                self.now = Some(slot.read(Cell::new(&instant, context, true))?);
            }
            Field::Id | Field::Op | Field::Insert | Field::Delete | Field::Other(_) => {}
        }
        Ok(())
    }

    fn build<E: de::Error>(mut self, context: &mut Context<'_>, op: Op) -> Result<Request, E> {
        if let (Some(raw), Some(relation)) = (self.early_filter.take(), &self.relation) {
            context.field = Some(Field::Where);
            self.filter = Kept(raw, PhantomData::<E>).read(Where { context, relation })?;
        }
        self.finish(op).map_err(|body| context.refuse(body))
    }

    fn finish(self, op: Op) -> Result<Request, ErrorBody> {
        let need = |field: Field| missing(field.text(), Some(op));
        Ok(match op {
            Op::Hello => Request::Hello {
                version: supported(self.version.ok_or_else(|| need(Field::Version))?)?,
                token: self.token,
            },
            Op::Register => Request::Register {
                program: self.program.ok_or_else(|| need(Field::Program))?,
                name: self.name,
                limits: self.limits,
            },
            Op::Cancel => Request::Cancel { name: self.name.ok_or_else(|| need(Field::Name))? },
            Op::Unregister => Request::Unregister { name: self.name.ok_or_else(|| need(Field::Name))? },
            Op::Transact => Request::Transact {
                changes: self.changes.ok_or_else(|| need(Field::Changes))?,
                key: self.key,
                wait: self.wait.unwrap_or_default(),
            },
            Op::Subscribe => self.subscribe()?,
            Op::Unsubscribe => Request::Unsubscribe { sub: self.sub.ok_or_else(|| need(Field::Sub))? },
            Op::Read => {
                let relation = self.relation.ok_or_else(|| need(Field::Relation))?;
                let order = self.order.map(|names| ordered(&relation, &names)).transpose()?;
                Request::Read { relation, filter: self.filter, order, limit: self.limit }
            }
            Op::Explain => Request::Explain {
                relation: self.relation.ok_or_else(|| need(Field::Relation))?,
                analyze: self.analyze.unwrap_or(false),
            },
            Op::Status => Request::Status,
            Op::Attach => Request::Attach {
                name: self.name.ok_or_else(|| need(Field::Name))?,
                source: self.source.ok_or_else(|| need(Field::Source))?,
            },
            Op::Detach => Request::Detach { name: self.name.ok_or_else(|| need(Field::Name))? },
            Op::Advance => Request::Advance { now: to_number(self.now.ok_or_else(|| need(Field::Now))?) },
            Op::Tune => Request::Tune { settings: self.settings },
            Op::Ping => Request::Ping,
            Op::Shutdown => Request::Shutdown,
        })
    }

    fn subscribe(self) -> Result<Request, ErrorBody> {
        let need = |field: Field| missing(field.text(), Some(Op::Subscribe));
        let relation = self.relation.ok_or_else(|| need(Field::Relation))?;
        let since = match (self.since, self.history) {
            (Some(time), Some(history)) => Some(Since { time, history }),
            (None, None) => None,
            (Some(_), None) => return Err(need(Field::History)),
            (None, Some(_)) => return Err(need(Field::Since)),
        };
        let (mut filter, mut ranking) = (self.filter, None);
        if let Some(limit) = self.limit {
            let order = ordered(&relation, &self.order.unwrap_or_default())?;
            filter.sort_unstable();
            ranking = Some(Ranking { filter: std::mem::take(&mut filter), order, limit });
        } else if self.order.is_some() {
            let message =
                format!("cannot subscribe to relation `{}` in an order without `limit`", relation.name);
            let hint =
                "Give `limit`, how many of the first rows to follow; all rows need no order.".to_owned();
            return Err(ErrorBody::incorrect(message).with_hint(hint));
        }
        Ok(Request::Subscribe(Subscribe {
            relation,
            snapshot: self.snapshot.unwrap_or(true),
            progress: self.progress.unwrap_or(false),
            filter,
            ranking,
            since,
            slow: self.slow.unwrap_or_default(),
            backlog: self.backlog,
        }))
    }
}

/// The columns that `order` names; one after a `-` descends.
fn ordered(relation: &Schema, names: &[String]) -> Result<Vec<By>, ErrorBody> {
    let mut order: Vec<By> = Vec::new();
    for name in names {
        let (name, descending) = name.strip_prefix('-').map_or((name.as_str(), false), |name| (name, true));
        let columns = &relation.columns;
        let Some(column) = columns.iter().position(|column| column.name == name) else {
            return Err(unknown_column(&relation.name, name, columns, "order"));
        };
        if order.iter().any(|by| by.column == column) {
            return Err(ErrorBody::incorrect(format!("duplicate column `{name}` in `order`")));
        }
        if matches!(columns[column].ty, Type::Composite(_)) {
            let (relation, ty) = (&relation.name, columns[column].type_name());
            let message = format!(
                "cannot order relation `{relation}` by column `{name}`: values of {ty} have no order"
            );
            return Err(ErrorBody::new(ErrorCode::Unsupported, message));
        }
        order.push(By { column, descending });
    }
    Ok(order)
}

fn unknown_field(op: Op, name: &Field) -> ErrorBody {
    let known = op.fields().iter().map(Field::text).chain(["id", "op"]);
    let hint = nearest(name.text(), known).map(|near| format!("Did you mean `{near}`?"));
    ErrorBody::incorrect(format!("unknown field `{}` of op `{}`", name.text(), op.name())).with_hint(hint)
}

fn supported(version: u64) -> Result<u64, ErrorBody> {
    if version == VERSION {
        return Ok(version);
    }
    Err(ErrorBody::new(ErrorCode::Unsupported, format!("version {version} of the protocol is not supported"))
        .with_hint(format!("This server speaks version {VERSION}.")))
}

/// What one of two words stands for.
fn chosen<T: Copy, E: de::Error>(
    context: &mut Context<'_>,
    field: &str,
    word: Option<Cow<'_, str>>,
    [one, other]: [(&str, T); 2],
) -> Result<Option<T>, E> {
    match word.as_deref() {
        None => Ok(None),
        Some(word) if word == one.0 => Ok(Some(one.1)),
        Some(word) if word == other.0 => Ok(Some(other.1)),
        Some(word) => {
            let body = ErrorBody::incorrect(format!("field `{field}`: unknown value `{word}`"))
                .with_hint(format!("It is `{}` or `{}`.", one.0, other.0));
            Err(context.refuse(body))
        }
    }
}

/// Seed of an optional value that serde knows how to read; null is none.
fn plain<'de, T: Deserialize<'de>>() -> PhantomData<Option<T>> {
    PhantomData
}

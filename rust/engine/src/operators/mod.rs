//! Dataflow operators over flat updates, each compiled once for each kind of time.
//!
//! * [`linear`]: row by row; and from arrangements back to rows.
//! * [`arrange`]: from rows to arrangements, exchanged by key.
//! * [`join`]: pairs of rows with equal keys.
//! * [`lookup`]: rows that meet an arrangement and are kept nowhere.
//! * [`distinct`]: each row once.
//! * [`growing`]: the same in a recursion that takes nothing back.
//! * [`aggregate`]: one row a key; [`aggregate_in_loop`]: the same inside a recursion.
//! * [`withheld`]: keys that a reduction must visit again.
//! * [`top`]: the first rows in an order.
//! * [`window`]: rows that are there for some time by the cluster's clock.
//! * [`import`]: another dataflow's arrangement as of a time.
//! * [`deliver`]: finished changes to the owners that want them.

pub(crate) mod aggregate;
pub(crate) mod aggregate_in_loop;
pub(crate) mod arrange;
pub(crate) mod deliver;
pub(crate) mod distinct;
pub(crate) mod growing;
pub(crate) mod import;
pub(crate) mod join;
pub(crate) mod linear;
pub(crate) mod lookup;
pub(crate) mod range;
pub(crate) mod top;
pub(crate) mod window;
pub(crate) mod withheld;

use differential_dataflow::Collection;
use differential_dataflow::operators::arrange::Arranged;

use crate::container::Updates;
use crate::trace::Reader;

/// A stream of updates.
pub(crate) type Rows<'scope, T> = Collection<'scope, T, Updates<T>>;
/// An arrangement, of this dataflow or another.
pub(crate) type ArrangedRows<'scope, T> = Arranged<'scope, Reader<T>>;
